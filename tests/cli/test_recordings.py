"""``cpuaccel tune`` with recordings and their texts: what is read, and how texts are judged."""

import csv
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from cpuaccel.cli.models.load import load_model
from cpuaccel.cli.models.recordings import Recordings, read_recordings, word_errors
from cpuaccel.errors import ModelError
from cpuaccel.plugin.manager import PluginHost
from tests.brief_searches import measure_briefly
from tests.caches import use_cache
from tests.cli.conftest import Run
from tests.required import EXAMPLES, requires

pytestmark = [requires("torch>=2.8"), requires(*EXAMPLES), requires("transformers>=5")]

SECONDS = (0.6, 1.0, 0.4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny Whisper in ``model``, and recordings with the texts that it hears."""
    from tests.examples.speech import whisper, write_recordings

    listener = whisper(tmp_path / "model", multilingual=False)
    paths = write_recordings(tmp_path / "recordings", SECONDS)
    write_list(
        tmp_path / "list.csv",
        [(f"recordings/{p.name}", listener.hears(p, max_new_tokens=8)) for p in paths],
    )
    return tmp_path


def write_list(file: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("audio", "text"), *rows])
    return file


def read(folder: Path, rows: int = 2, file: Path | None = None) -> Recordings:
    name = str(folder / "model")
    model = load_model(name, generates=True)
    return read_recordings(name, model, folder / "list.csv" if file is None else file, rows)


@pytest.mark.parametrize(
    ("said", "known", "errors"),
    [
        ("a b c", "a b c", 0),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a x c", "a b c", 1),
        ("a c", "a b c", 1),
        ("a b c d", "b c", 2),
        ("b a", "a b", 2),
        ("a b c d e", "x b d e y", 3),
    ],
)
def test_words_to_change(said: str, known: str, errors: int) -> None:
    assert word_errors(said.split(), known.split()) == errors


def test_recordings_in_batches(folder: Path) -> None:
    found = read(folder)
    assert [len(batch["input_features"]) for batch in found.batches] == [2, 1]  # type: ignore[arg-type]
    model = load_model(str(folder / "model"), generates=True)
    with torch.no_grad():
        outputs = [model.generate(**batch, max_new_tokens=8) for batch in found.batches]  # type: ignore[operator]
    assert found.accuracy(outputs) == 1
    texts = [text.upper() + " word," for text in found.texts]
    worse = Recordings(found.batches, texts, found.tokenizer)
    words = sum(len(text.split()) for text in texts)
    assert worse.accuracy(outputs) == pytest.approx(1 - len(texts) / words)


def test_what_is_refused(folder: Path) -> None:
    from tests.examples.speech import write_recordings

    (long,) = write_recordings(folder / "long", [1.5])
    for rows, reason in (
        ([("recordings/0.wav", "")], "1 of 1 rows"),
        ([], "0 of 0 rows"),
        ([("recordings/9.wav", "a")], "9.wav can't be read"),
        ([(str(long), "a")], "up to 1 seconds, got 1.5"),
    ):
        with pytest.raises(ModelError, match=reason):
            read(folder, file=write_list(folder / "wrong.csv", rows))
    with pytest.raises(ModelError, match="can't be read"):
        read(folder, file=folder / "missing.csv")
    name = "config:whisper-tiny"
    random = load_model(name, generates=True)
    with pytest.raises(ModelError, match="trained model for speech"):
        read_recordings(name, random, folder / "list.csv", 1)


def test_tune(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = importlib.metadata.entry_points(group="cpuaccel")
    onednn = PluginHost(entry for entry in offered if entry.name == "onednn")
    monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: onednn)
    use_cache(folder / "cache", monkeypatch)
    measure_briefly(monkeypatch)
    ran = run(
        *("tune", folder / "model", "--recordings", folder / "list.csv", "--generate", "8"),
        *("--task", "automatic-speech-recognition", "--budget", "500", "--threads", "1", "--json"),
    )
    assert ran.code == 0, ran.err
    (row,) = ran.data["rows"]
    assert row["pipeline"] == "onednn"
    assert row["metric"] == 1


def test_options_that_need_each_other(run: Run, folder: Path) -> None:
    assert "--recordings" in run("tune", "demo", "--max-drop", "0.1").err
    assert "--generate" in run("tune", "demo", "--recordings", folder / "list.csv").err
