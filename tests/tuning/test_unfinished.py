"""The results of a search that does not finish are printed."""

import importlib.metadata
import signal
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.disks import fill, small_disk
from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.test_interruption import begin, wait_for
from tests.tuning.test_lockfile import environment

TUNE = (
    *("tune", "config:bert-tiny", "--seq-len", "16"),
    *("--budget", "500", "--threads", "1"),
)
COMMAND = [sys.executable, "-m", "cpuaccel", *TUNE]
HANGS = "starts_another_and_hangs"


def among(*names: str, site: Path) -> dict[str, str]:
    """Return an environment with these plugins only."""
    offered = importlib.metadata.entry_points(group="cpuaccel")
    others = {entry.name for entry in offered} - {*names}
    return {**environment(site), "CPUACCEL_DISABLE_PLUGINS": ",".join(others), "COLUMNS": "200"}


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_an_interrupted_search_prints_the_results_so_far(
    run: Run, install: Install, tmp_path: Path, form: list[str]
) -> None:
    install("jit", "then_interrupts")
    ran = run(*TUNE, *form, "--lock", tmp_path / "cpuaccel.lock")
    assert ran.code == 130, ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "cpuaccel.lock").exists()
    if form:
        found = ran.data
        assert found["interrupted"]
        (row,) = found["rows"]
        assert (row["pipeline"], row["status"]) == ("jit", "measured")
        assert row["median_ms"] > 0
    else:
        assert "The search did not finish, and nothing was written. Results so far:" in ran.out
        assert [line.split()[:2] for line in ran.out.splitlines() if line.startswith("jit ")] == [
            ["jit", "float32"]
        ]


def test_ctrl_c_before_any_result(install: Install, tmp_path: Path) -> None:
    install(HANGS)
    searching = begin(COMMAND, among(HANGS, site=tmp_path / "site"), tmp_path / "started")
    wait_for(tmp_path / "started", searching)
    searching.send_signal(signal.SIGINT)
    out, err = searching.communicate(timeout=stretched(120))
    assert searching.returncode == 130, err
    assert out == "Interrupted: no results yet, and nothing was written.\n"
    assert "Traceback" not in err


@pytest.mark.parametrize("full", ["lock", "page"])
def test_prints_the_results_if_files_cannot_be_written(
    run: Run, install: Install, tmp_path: Path, full: str
) -> None:
    install("jit")
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        path = disk / full
        ran = run(*TUNE, "--json", "--lock" if full == "lock" else "--html", path)
        assert not path.exists()
        assert {left.name for left in disk.iterdir()} <= {"filling", ".lock.held"}
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    assert f"{path} can't be written: No space left on device." in ran.err
    (row,) = ran.data["rows"]
    assert row["pipeline"] == "jit"
    assert row["median_ms"] > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_prints_the_results_if_stdout_cannot_be_written(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("jit")
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        ran = run(*TUNE)
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    assert '"median_ms"' in ran.err
    assert "cannot write the results to stdout: No space left on device." in (
        " ".join(ran.err.split())
    )
