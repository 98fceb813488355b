"""The results of a search that does not finish are printed."""

import importlib.metadata
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks import fill, small_disk
from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.test_interruption import begin, running, wait_for
from tests.tuning.test_lockfile import environment

TUNE = [
    *(sys.executable, "-m", "cpuaccel", "tune", "config:bert-tiny", "--seq-len", "16"),
    *("--budget", "150", "--threads", "1"),
]
HANGS = "starts_another_and_hangs"


def among(*names: str, site: Path) -> dict[str, str]:
    """Return an environment with these plugins only."""
    offered = importlib.metadata.entry_points(group="cpuaccel")
    others = {entry.name for entry in offered} - {*names}
    return {**environment(site), "CPUACCEL_DISABLE_PLUGINS": ",".join(others), "COLUMNS": "200"}


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_ctrl_c_prints_the_results_so_far(
    install: Install, tmp_path: Path, form: list[str]
) -> None:
    install(HANGS)
    site = tmp_path / "site"
    searching = begin(
        [*TUNE, *form, "--lock", str(tmp_path / "cpuaccel.lock")],
        among("jit", HANGS, site=site),
        tmp_path / "started",
    )
    assert searching.stderr is not None
    measured = False
    for line in searching.stderr:
        measured |= "measuring jit in float32" in line
        if measured and f"building {HANGS}" in line:
            break
    started = wait_for(tmp_path / "started", searching)
    searching.send_signal(signal.SIGINT)
    out, err = searching.communicate(timeout=stretched(120))
    assert searching.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "cpuaccel.lock").exists()
    assert not any(map(running, started))
    if form:
        found = json.loads(out)
        assert found["interrupted"]
        (row,) = found["rows"]
        assert (row["pipeline"], row["status"]) == ("jit", "measured")
        assert row["median_ms"] > 0
    else:
        assert "The search did not finish, and nothing was written. Results so far:" in out
        assert [line.split()[:2] for line in out.splitlines() if line.startswith("jit ")] == [
            ["jit", "float32"]
        ]


def test_ctrl_c_before_any_result(install: Install, tmp_path: Path) -> None:
    install(HANGS)
    searching = begin(TUNE, among(HANGS, site=tmp_path / "site"), tmp_path / "started")
    wait_for(tmp_path / "started", searching)
    searching.send_signal(signal.SIGINT)
    out, err = searching.communicate(timeout=stretched(120))
    assert searching.returncode == 130, err
    assert out == "Interrupted: no results yet, and nothing was written.\n"
    assert "Traceback" not in err


@pytest.mark.parametrize("full", ["lock", "page"])
def test_prints_the_results_if_files_cannot_be_written(tmp_path: Path, full: str) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        path = disk / full
        done = subprocess.run(
            [*TUNE, "--json", "--lock" if full == "lock" else "--html", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=among("jit", site=tmp_path),
        )
        assert not path.exists()
        assert {left.name for left in disk.iterdir()} <= {"filling", ".lock.held"}
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{path} can't be written: No space left on device." in done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["pipeline"] == "jit"
    assert row["median_ms"] > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_prints_the_results_if_stdout_cannot_be_written(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            TUNE,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=among("jit", site=tmp_path),
        )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert '"median_ms"' in done.stderr
    assert "cannot write the results to stdout: No space left on device." in done.stderr
