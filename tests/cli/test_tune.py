import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from cpuaccel.plugin.manager import PluginHost
from tests.brief_searches import measure_briefly
from tests.caches import use_cache
from tests.cli.conftest import Run
from tests.required import requires

pytestmark = requires("torch>=2.8")

TINY = ("tune", "config:bert-tiny", "--seq-len", "16", "--budget", "500")


@pytest.fixture(autouse=True)
def _jit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches among one backend, and keeps nothing outside the test's folder."""
    offered = importlib.metadata.entry_points(group="cpuaccel")
    jit = PluginHost(entry for entry in offered if entry.name == "jit")
    monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: jit)
    use_cache(tmp_path / "cache", monkeypatch)
    measure_briefly(monkeypatch)


def test_search_lock_file_and_page(run: Run, tmp_path: Path) -> None:
    lock, page = tmp_path / "cpuaccel.lock", tmp_path / "page.html"
    ran = run(*TINY, "--threads", "1", "--lock", lock, "--html", page)
    assert ran.code == 0, ran.err
    assert "config:bert-tiny on " in ran.out
    (row,) = [line.split() for line in ran.out.splitlines() if line.startswith("jit ")]
    assert row[:2] == ["jit", "float32"]
    assert "Chosen" in ran.out
    assert f"written: {lock}" in ran.out
    assert "building jit in float32" in ran.err
    assert tomllib.loads(lock.read_text())["version"] == 1
    assert page.read_text().startswith("<!doctype html>")
    again = run(*TINY, "--threads", "1", "--lock", lock, "--strict", "--json")
    assert again.data["source"] == str(lock)
    assert again.data["rows"] == []
    changed = run(*TINY, "--threads", "1", "--tolerance", "0.01", "--lock", lock, "--strict")
    assert changed.code == 1
    assert "request.tolerance was default, is 0.01" in changed.err
    assert "Traceback" not in changed.err


def test_json_has_all_figures(run: Run) -> None:
    data = run(*TINY, "--json", "--batch-size", "2", "--padding", "0.3").data
    (row,) = data["rows"]
    assert row["pipeline"] == "jit"
    assert row["speedup"]["rounds"] == len(row["rounds"])
    assert row["build_seconds"] > 0
    assert row["peak_bytes"] > 2**20
    assert set(row["errors"]) == {"last_hidden_state", "pooler_output"}
    assert data["batches"] == [{"rows": 2, "length": 16, "padding": 0.3125, "weight": 1.0}]
    assert data["host"]["cores"] >= 1
    assert data["rebuilt"]


MISTAKES = {
    "target": (("--target", "size"), "unknown 'size'. Known: latency, throughput"),
    "precision": (("--precisions", "int3"), "unknown 'int3'. Known: float32, bfloat16"),
    "threads": (("--threads", "many"), "must be whole numbers >= 1"),
    "html": (("--html", "/nowhere/page.html"), "Choose another path"),
    "budget": (("--budget", "0"), "budget must be > 0, got 0.0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_rejects_invalid_arguments_before_the_search(run: Run, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    ran = run("tune", "config:bert-tiny", *arguments)
    assert ran.code in (1, 2)
    assert message in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err


def test_the_demo_has_fixed_lengths(run: Run) -> None:
    ran = run("tune", "demo", "--seq-len", "8")
    assert ran.code == 2
    assert "whose inputs are real text" in " ".join(ran.err.split())


@requires("transformers>=5")
def test_generate(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = importlib.metadata.entry_points(group="cpuaccel")
    onednn = PluginHost(entry for entry in offered if entry.name == "onednn")
    monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: onednn)
    ran = run(
        *("tune", "config:llama-tiny", "--generate", "3", "--prompt-len", "6,9"),
        *("--budget", "500", "--threads", "1", "--json"),
    )
    assert ran.code == 0, ran.err
    (row,) = ran.data["rows"]
    assert row["pipeline"] == "onednn"
    assert row["median_ms"] > 0
    assert [shape["length"] for shape in ran.data["batches"]] == [6, 9]


def test_speech_is_generated(run: Run) -> None:
    ran = run(
        *("tune", "config:whisper-tiny", "--task", "automatic-speech-recognition"),
        *("--generate", "3", "--num-beams", "2", "--budget", "60", "--threads", "1", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.data["rows"] == []
    reasons = {one["name"]: one["reason"] for one in ran.data["not_tried"]}
    assert reasons["jit"] == "it does not generate"
