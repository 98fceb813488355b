import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.tuning.decisions.lockfile import read_lock
from tests.tuning.conftest import Install
from tests.tuning.models import IDS, Waiting
from tests.tuning.results import tuning

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cpuaccel.lock"


@pytest.fixture(scope="module")
def locks() -> list[str]:
    """The lock file that a search has written, once one has."""
    return []


@pytest.fixture
def locked(install: Install, lock: Path, locks: list[str]) -> Path:
    """A lock file for ``Waiting``, whose winner is ``short``."""
    install("short")
    if not locks:
        fast = cpuaccel.optimize(
            Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500, lock=lock
        )
        assert tuning(fast).source == "search"
        locks.append(lock.read_text())
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(locks[0])
    return lock


def test_contains_pipeline_options_figures_and_fingerprint(locked: Path) -> None:
    table = tomllib.loads(locked.read_text())
    assert table["pipelines"][0]["steps"] == [{"backend": "short", "options": {}}]
    median, low, high = table["pipelines"][0]["speedup"]
    assert 1 < low <= median <= high
    assert table["pipelines"][0]["median_ms"] > 0
    assert table["fingerprint"]["packages"]["torch"] == cpuaccel.host().packages["torch"]
    assert table["fingerprint"]["model"]["class"] == "tests.tuning.models.Waiting"
    assert table["fingerprint"]["plugins"] == {"short": "short (dist-of-short 1.0)"}
    assert table["fingerprint"]["cores"] == cpuaccel.host().cores
    assert [path.name for path in locked.parent.iterdir() if path.suffix == ".lock"] == [
        "cpuaccel.lock"
    ]


def test_uses_a_lock_file_without_a_search(locked: Path) -> None:
    text = locked.read_text()
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=locked, strict=True)
    found = tuning(fast)
    assert found.rows == ()
    assert found.source == str(locked)
    assert found.winner.name == "short"
    assert "as fast as the original in this process; outputs within 0 of" in found.rebuilt[0]
    assert fast.report.applied == ("short",)
    assert locked.read_text() == text


@pytest.fixture
def unfinished(locked: Path) -> Path:
    """A lock file of a search that left candidates untried after 100 s."""
    locked.write_text(f"unfinished_budget = 100.0\n{locked.read_text()}")
    return locked


@pytest.mark.parametrize(
    "arguments",
    [{}, {"budget": 100}, {"budget": 200, "strict": True}],
    ids=["default budget", "same budget", "strict"],
)
def test_uses_an_unfinished_decision_without_a_search(
    unfinished: Path, arguments: dict[str, Any]
) -> None:
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=unfinished, **arguments)
    assert tuning(fast).source == str(unfinished)
    assert fast.report.applied == ("short",)
    assert "its search of 100 s left candidates untried" in str(fast.report)


def test_a_longer_budget_searches_again_after_an_unfinished_search(
    unfinished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500, lock=unfinished
    )
    assert tuning(fast).source == "search"
    assert "an unfinished search of 100 s, searching again for 500 s" in caplog.text
    assert "unfinished_budget" not in tomllib.loads(unfinished.read_text())


def test_a_finished_decision_is_used_whatever_the_budget(locked: Path) -> None:
    assert "unfinished_budget" not in locked.read_text()  # like the files of 0.1
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=5000, lock=locked)
    assert tuning(fast).source == str(locked)


def test_strict_refuses_a_lock_file_that_does_not_fit(locked: Path) -> None:
    longer = {"input_ids": torch.ones(2, 16, dtype=torch.long)}
    with pytest.raises(cpuaccel.LockError) as raised:
        cpuaccel.optimize(Waiting(), "auto", example_inputs=longer, lock=locked, strict=True)
    assert str(raised.value).splitlines() == [
        f"the lock file {locked} does not fit. Tune again without strict, or restore what changed:",
        "  - request.inputs was input_ids int64[2, 8] (2 x 8), is input_ids int64[2, 16] (2 x 16)",
    ]


def test_searches_again_if_the_lock_file_does_not_fit(
    locked: Path, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("short", "slow")  # another backend, which may be faster
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(
            Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500, lock=locked
        )
    assert tuning(fast).source == "search"
    (warning,) = [r.getMessage() for r in caplog.records if "searching again" in r.message]
    assert warning.endswith("plugins.slow was absent, is slow (dist-of-slow 1.0)")
    lock = read_lock(locked)
    assert lock is not None
    assert lock.fingerprint.plugins.keys() == {"short", "slow"}


def test_strict_refuses_a_decision_that_changes_outputs(locked: Path, install: Install) -> None:
    """The same fingerprint, but other outputs."""
    site = next(Path(p) for p in sys.path if (Path(p) / "t_short.py").exists())
    source = (site / "t_short.py").read_text()
    (site / "t_short.py").write_text(source.replace("<= 16)", "<= 16) * 3"))
    del sys.modules["t_short"]
    install("short")
    with pytest.raises(cpuaccel.LockError, match=r"does not fit(.|\n)*it changes the outputs"):
        cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=locked, strict=True)


def test_uses_edited_options(install: Install, lock: Path) -> None:
    install("with_option")
    cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500, lock=lock)
    text = lock.read_text()
    assert 'note = "as it comes"' in text
    lock.write_text(text.replace('note = "as it comes"', 'note = "edited"'))
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=lock)
    assert tuning(fast).source == str(lock)
    assert fast.report.outcomes[0].evidence["note"] == "edited"


BROKEN = {
    "invalid TOML": ("version = ", "invalid TOML"),
    "another version": ("version = 2", "version: input should be 1, but got 2"),
    "a field too many": ("version = 1\nfastest = 3", "unknown name 'fastest'"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_rejects_an_invalid_lock_file(tmp_path: Path, mistake: str) -> None:
    text, message = BROKEN[mistake]
    path = tmp_path / "cpuaccel.lock"
    path.write_text(text)
    with pytest.raises(cpuaccel.LockError, match="and tune again") as raised:
        cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=path)
    assert message in str(raised.value)
    assert path.read_text() == text


def test_strict_needs_the_lock_file(lock: Path) -> None:
    with pytest.raises(cpuaccel.LockError, match=r"does not exist\. Tune once"):
        cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, lock=lock, strict=True)


def test_caches_the_decision(install: Install, cache: Path) -> None:
    install("short")
    cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500)
    (kept,) = cache.glob("*.toml")
    again = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500)
    assert tuning(again).source == str(kept)
    kept.write_text("half a fi")  # an invalid file in the cache is replaced
    anew = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500)
    assert tuning(anew).source == "search"
    assert read_lock(kept) is not None


ONLY = """
import importlib.metadata
import sys
import torch
import cpuaccel.tuning.auto as auto
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.tuning.progress import Progress
from cpuaccel.tuning.request import Request
from tests.tuning.models import Waiting

offered = importlib.metadata.entry_points(group="cpuaccel")
chosen = PluginHost(entry for entry in offered if entry.name in sys.argv[1].split(","))
auto.plugin_host = lambda: chosen
torch.set_num_threads(1)
ids = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
model = Waiting()
"""
"""The beginning of a program that searches among the backends of some plugins."""

SEARCH = """
request = Request.from_arguments(model, {"budget": 500, "time_limit": 500})
fast = auto.optimize_auto(model, ids, request, Progress())
print(fast.report.tuning.source == "search", fast.report.tuning.winner.name)
"""


def test_concurrent_processes_search_once(install: Install, cache: Path, tmp_path: Path) -> None:
    install("short")
    searching = [
        subprocess.Popen(
            [sys.executable, "-c", ONLY + SEARCH, "short"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path / "site"),
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in searching]
    assert [process.returncode for process in searching] == [0, 0], outputs
    assert sorted(out for out, _ in outputs) == ["False short\n", "True short\n"]
    assert (
        sum("waiting for another process that is tuning the same" in err for _, err in outputs) <= 1
    )
    assert len(list(cache.glob("*.toml"))) == 1
    assert {path.suffix for path in cache.iterdir()} == {".toml", ".held"}


def environment(site: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))}
