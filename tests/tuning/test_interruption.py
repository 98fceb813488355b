"""Ending a search leaves no processes and no incomplete files."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.test_lockfile import ONLY, environment

SEARCH = """
request = Request.from_arguments(model, {"budget": 200, "time_limit": 150, "lock": sys.argv[2]})
auto.optimize_auto(model, ids, request, Progress())
"""
ENDS = {
    "Ctrl-C": (signal.SIGINT, {-signal.SIGINT, 130, 1}),
    "terminated": (signal.SIGTERM, {128 + signal.SIGTERM}),
    "killed": (signal.SIGKILL, {-signal.SIGKILL}),
}


@pytest.mark.parametrize("end", ENDS)
def test_ending_a_search_leaves_no_processes_or_files(
    install: Install, tmp_path: Path, cache: Path, end: str
) -> None:
    number, codes = ENDS[end]
    install("starts_another_and_hangs")
    folder, temporary = tmp_path / "lock", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    searching = begin(
        [
            *(sys.executable, "-c", ONLY + SEARCH),
            *("starts_another_and_hangs", str(folder / "cpuaccel.lock")),
        ],
        {**environment(tmp_path / "site"), "TMPDIR": str(temporary)},
        tmp_path / "started",
    )
    started = wait_for(tmp_path / "started", searching)
    assert len(started) == 2
    searching.send_signal(number)
    searching.communicate(timeout=stretched(60))
    assert searching.returncode in codes
    deadline = time.monotonic() + stretched(60)
    while any(map(running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in started if running(process)]
    assert left == []
    assert [path.name for path in folder.iterdir() if path.suffix != ".held"] == []
    # Inductor creates its cache folder on import.
    assert [p.name for p in temporary.iterdir() if not p.name.startswith("torchinductor")] == []
    assert not cache.exists()


OPTIMIZE = """
import cpuaccel
cpuaccel.optimize(model, "auto", example_inputs=ids, budget=200, time_limit=150, cache=False)
"""


def test_ctrl_c_logs_the_results_so_far(install: Install, tmp_path: Path) -> None:
    names = ("short", "starts_another_and_hangs")
    install(*names)
    searching = begin(
        [sys.executable, "-c", ONLY + OPTIMIZE, ",".join(names)],
        environment(tmp_path / "site"),
        tmp_path / "started",
    )
    wait_for(tmp_path / "started", searching)
    searching.send_signal(signal.SIGINT)
    logged = searching.communicate(timeout=stretched(60))[1]
    assert "search interrupted, no decision saved" in logged
    assert "short in float32 " in logged


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def begin(
    command: Sequence[str], environment: Mapping[str, str], started: Path
) -> "subprocess.Popen[str]":
    """Start a search; a plugin that starts another process writes both ids to ``started``."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "CPUACCEL_TEST_STARTED": str(started)},
    )


def wait_for(path: Path, process: "subprocess.Popen[str]") -> list[int]:
    """Wait for the ids of the worker and of the process that its plugin started."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return [int(line) for line in path.read_text().split()]


def test_restores_the_sigterm_handler() -> None:
    from cpuaccel.tuning.workers.parent import ended_by_sigterm

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised, ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
