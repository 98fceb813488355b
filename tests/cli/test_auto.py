"""``--backends auto`` and lock files in the commands, with a search among one backend."""

import html
import importlib.metadata
import json
import tomllib
from pathlib import Path

import pytest
import tomli_w

import cpuaccel
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.timing import Speedup
from tests.brief_searches import measure_briefly
from tests.caches import use_cache
from tests.cli.conftest import Run
from tests.required import requires

pytestmark = requires("torch>=2.8")

SHAPES = ("--batch-size", "2", "--seq-len", "16")


@pytest.fixture(autouse=True)
def _jit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = importlib.metadata.entry_points(group="cpuaccel")
    jit = PluginHost(entry for entry in offered if entry.name == "jit")
    monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: jit)
    use_cache(tmp_path / "cache", monkeypatch)
    measure_briefly(monkeypatch)


@pytest.fixture(scope="module")
def locks() -> list[str]:
    """The lock file that a search has written, once one has."""
    return []


@pytest.fixture
def lock(run: Run, locks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file that decides for jit. Which of two tiny models is faster is chance."""
    path = tmp_path / "cpuaccel.lock"
    tuned = ("tune", "config:bert-tiny", *SHAPES, "--tolerance", "0.01", "--threads", "1")
    if not locks:
        assert run(*tuned, "--budget", "500", "--lock", path).code == 0
        locks.append(path.read_text())
    data = tomllib.loads(locks[0])
    data["pipelines"] = [{"precision": "float32", "steps": [{"backend": "jit"}]}]
    path.write_text(tomli_w.dumps(data))
    always = Speedup.from_ratios([2.0] * 9)
    monkeypatch.setattr("cpuaccel.tuning.auto._Auto._speedup", lambda *_: always)
    return path


def test_a_decision_of_tune_is_saved(run: Run, lock: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast"
    ran = run("optimize", "config:bert-tiny", *SHAPES, "--lock", lock, "--output", fast)
    assert ran.code == 0, ran.err
    assert f"read from {lock}, without a search" in " ".join(ran.out.split())
    assert [step.backend for step in read_pipeline(fast / "pipeline.toml").steps] == ["jit"]
    loaded = cpuaccel.load(fast)
    assert loaded.report.applied == ("jit",)
    settings = json.loads((fast / "artifact.json").read_text())["settings"]
    assert settings["tolerance"] == 0.01  # that of the search
    assert settings["strict"] is False


def test_the_page_shows_how_to_use_and_save_the_winner(
    run: Run, lock: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    tuned = ("tune", "config:bert-tiny", *SHAPES, "--tolerance", "0.01", "--threads", "1")
    ran = run(*tuned, "--lock", lock, "--html", page)
    assert ran.code == 0, ran.err
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert f'example_inputs=batch, threads=1, tolerance=0.01, lock="{lock}")' in text
    assert f"cpuaccel optimize config:bert-tiny {' '.join(SHAPES)} --lock {lock} --output" in text


def test_a_decision_that_does_not_fit_is_not_saved(run: Run, lock: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast"
    ran = run("optimize", "config:bert-tiny", "--lock", lock, "--output", fast)
    assert ran.code == 1
    assert "does not fit" in ran.err
    assert "request.inputs was" in ran.err
    assert not fast.exists()


def test_optimize_searches(run: Run, tmp_path: Path) -> None:
    fast = tmp_path / "fast"
    ran = run("optimize", "config:bert-tiny", *SHAPES, "--backends", "auto", "--output", fast)
    assert "building jit in float32" in ran.err
    if ran.code == 0:
        assert read_pipeline(fast / "pipeline.toml").steps[0].backend == "jit"
    else:
        assert "eager in its own precision is the fastest" in " ".join(ran.err.split())
        assert not fast.exists()


def test_bench_times_what_a_search_finds(run: Run) -> None:
    ran = run("bench", "config:bert-tiny", *SHAPES, "--backends", "auto", "--rounds", "1", "--json")
    assert ran.code == 0, ran.err
    pipelines = [result["pipeline"] for result in ran.data["results"]]
    assert pipelines[0] == "eager"
    kept = "auto keeps eager" in ran.err
    assert pipelines[1:] == ([] if kept else ["auto: jit"])


def test_explain_lists_what_a_search_tries(run: Run) -> None:
    ran = run("explain", "config:bert-tiny", "--backends", "auto", "--json")
    assert {"pipeline": "jit", "precision": "float32"} in ran.data["candidates"]
    out = run("explain", "config:bert-tiny", "--backends", "auto").out
    assert "try       jit in float32" in out


REFUSED = {
    "mixed": (("explain", "config:bert-tiny", "--backends", "auto,jit"), "can't be combined"),
    "file": (
        ("explain", "config:bert-tiny", "--backends", "auto", "--pipeline", "x.toml"),
        "pass one of them",
    ),
    "dtypes": (
        ("bench", "config:bert-tiny", "--backends", "auto", "--dtype", "float32,bfloat16"),
        "must be one with auto",
    ),
    "lock": (
        ("optimize", "config:bert-tiny", "--lock", "x", "--backends", "jit", "--output", "fast"),
        "which the lock file has",
    ),
    "generate": (("generate", "config:llama-tiny", "x", "--backends", "auto"), "not supported"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_usage_errors(run: Run, mistake: str) -> None:
    arguments, message = REFUSED[mistake]
    ran = run(*arguments)
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", " ").split())
    assert ran.out == ""


def test_a_lock_file_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    ran = run("optimize", "config:bert-tiny", "--lock", tmp_path / "no.lock", "--output", "fast")
    assert ran.code == 1
    assert "does not exist. Write it with cpuaccel tune" in ran.err
