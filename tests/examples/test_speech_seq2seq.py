"""run_speech_recognition_seq2seq.py with small models and with a trained one."""

from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers", minversion="4.48")
pytest.importorskip("datasets")
pytest.importorskip("soundfile")

from torchmetrics.text import WordErrorRate  # noqa: E402

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import read_tsv, write_rows  # noqa: E402
from tests.examples.results import results  # noqa: E402
from tests.examples.speech import Listener, rows, speech2text, whisper, write_recordings  # noqa: E402
from tests.required import NATIVE, ROOT, requires  # noqa: E402

SCRIPT = "speech_recognition/run_speech_recognition_seq2seq.py"
ASR = ROOT.parent / "shared" / "asr"

SHORT = (0.5, 0.9, 0.3, 0.7)
LONG = (2.3, 0.6, 1.7)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Listener:
    return whisper(tmp_path_factory.mktemp("whisper") / "model")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_recordings(tmp_path_factory.mktemp("short") / "sounds", SHORT)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_recordings(tmp_path_factory.mktemp("long") / "sounds", LONG)


def wrong_in_each(texts: list[str]) -> list[str]:
    """Labels: the texts, whose first word is another one and which end in a point."""
    return [" ".join(["Zzz", *text.split()[1:]]) + "." for text in texts]


def word_errors(said: list[str], known: list[str]) -> float:
    metric = WordErrorRate()
    metric.update(said, known)
    return float(metric.compute())


def run(
    example: Example, model: Path, data: Path, output: Path, *options: object
) -> dict[str, Any]:
    """Evaluate and predict, and return the results with the predicted texts."""
    done = example(
        SCRIPT,
        *("--model_name_or_path", model, "--output_dir", output),
        *("--do_eval", "--validation_file", data, "--do_predict", "--test_file", data),
        *("--per_device_eval_batch_size", 2, *options),
    )
    assert done.code == 0, done.err
    return {**results(output), "text": read_tsv(output / "predictions.tsv")["text"]}


OPTIONS: dict[str, tuple[list[object], dict[str, object]]] = {
    "greedy": ([], {"language": "en"}),
    "beams": (["--generation_num_beams", 3], {"language": "en", "num_beams": 3}),
    "translate": (["--task", "translate"], {"language": "en", "task": "translate"}),
    "length": (["--generation_max_length", 20], {"language": "en", "max_length": 20}),
    "timestamps": (["--return_timestamps"], {"language": "en", "return_timestamps": True}),
}


@pytest.mark.parametrize("way", OPTIONS)
def test_options(
    example: Example, listener: Listener, short: list[Path], tmp_path: Path, way: str
) -> None:
    options, call = OPTIONS[way]
    texts = [listener.hears(path, **call) for path in short]
    assert all(texts)
    assert len(set(texts)) > 1
    known = wrong_in_each(texts)
    data = write_rows(tmp_path / "list.jsonl", rows(short, known))
    found = run(example, listener.folder, data, tmp_path / "out", "--language", "English", *options)
    assert found["text"] == texts
    assert found["wer"] == pytest.approx(word_errors(texts, known), abs=1e-6)
    # Without the points, one word is wrong in each.
    right = sum(len(text.split()) for text in texts)
    assert found["wer_normalized"] == pytest.approx(len(texts) / right, abs=1e-6)
    assert found["audio_seconds"] == round(sum(SHORT))
    factor = found["runtime"] / sum(SHORT)
    assert found["real_time_factor"] == pytest.approx(factor, rel=1e-3)


def test_the_language_is_detected(
    example: Example, listener: Listener, short: list[Path], tmp_path: Path
) -> None:
    texts = [listener.hears(path) for path in short]
    data = write_rows(tmp_path / "list.csv", rows(short, texts))
    found = run(example, listener.folder, data, tmp_path / "out")
    assert found["text"] == texts
    assert found["wer"] == found["wer_normalized"] == 0


@requires(*NATIVE)
def test_long_recordings_with_a_pipeline(
    example: Example, listener: Listener, long: list[Path], tmp_path: Path
) -> None:
    """The short one among them gets timestamps too, whichever batch it is in."""
    call = {"language": "de", "return_timestamps": True}
    texts = [listener.hears(path, **call) for path in long]
    data = write_rows(tmp_path / "list.jsonl", rows(long, texts))
    options = ("--cpuaccel_backends", "onednn", "--compare_with_eager", "--language", "de")
    found = run(example, listener.folder, data, tmp_path / "out", *options)
    assert found["text"] == texts
    assert found["wer"] == found["eager_wer"] == 0
    assert found["eager_real_time_factor"] > 0
    assert found["cpuaccel_onednn_applied"] == 1
    assert found["cpuaccel_calls_optimized"] == 2
    assert found["cpuaccel_calls_original"] == 0


def test_a_model_without_a_window(example: Example, short: list[Path], tmp_path: Path) -> None:
    listener = speech2text(tmp_path / "model")
    texts = [listener.hears(path) for path in short]
    data = write_rows(tmp_path / "list.csv", rows(short, texts))
    # Its convolutions read the padding, so its texts depend on the batch.
    options = ("--per_device_eval_batch_size", 1)
    found = run(example, listener.folder, data, tmp_path / "out", *options)
    assert found["text"] == texts
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--language", "klingon"], "unknown --language klingon. The model has de, en"),
        (["--language", "germn"], "unknown --language germn. Did you mean 'german'?"),
        (["--task", "summarize"], "unknown --task summarize. Available: translate, transcribe"),
        (["--predict_with_generate", "false"], "--predict_with_generate must be true"),
        (["--generation_num_beams", "0"], "--generation_num_beams must be >= 1, got 0"),
    ],
)
def test_usage_errors(
    example: Example,
    listener: Listener,
    short: list[Path],
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    data = write_rows(tmp_path / "list.csv", rows(short[:1], ["a"]))
    done = example(
        SCRIPT,
        *("--model_name_or_path", listener.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, *options),
    )
    done.assert_error(message, code=2)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda folder: whisper(folder, multilingual=False),
            ["--language", "de"],
            "--language de: the model is not a multilingual Whisper. Leave it out",
        ),
        (
            speech2text,
            ["--return_timestamps"],
            "--return_timestamps is for Whisper, got a Speech2TextForConditionalGeneration",
        ),
    ],
    ids=["language", "timestamps"],
)
def test_options_that_a_model_does_not_have(
    example: Example,
    short: list[Path],
    tmp_path: Path,
    make: Any,
    options: list[str],
    message: str,
) -> None:
    data = write_rows(tmp_path / "list.csv", rows(short[:1], ["a"]))
    done = example(
        SCRIPT,
        *("--model_name_or_path", make(tmp_path / "model").folder),
        *("--output_dir", tmp_path / "out", "--do_eval", "--validation_file", data, *options),
    )
    done.assert_error(message, code=2)


TRANSCRIPTS = {
    "0880": (
        "he was not an ill disposed young man",
        "He was not an old-sposed young man.",
    ),
    "0890": (
        "unless to be rather cold hearted and rather selfish is to be ill disposed",
        "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    ),
    "0930": (
        "he might even have been made amiable himself",
        "He might even have been made amiable himself.",
    ),
}
"""Of three recordings: what is said, and what the trained model hears in float32."""


@requires("path: ../shared/asr", *NATIVE)
def test_trained(example: Example, tmp_path: Path) -> None:
    paths = [next((ASR / "recordings").glob(f"*-{number}.wav")) for number in TRANSCRIPTS]
    known, heard = map(list, zip(*TRANSCRIPTS.values(), strict=True))
    data = write_rows(tmp_path / "list.jsonl", rows(paths, known))
    done = example(
        SCRIPT,
        *("--model_name_or_path", ASR / "model", "--output_dir", tmp_path / "out"),
        *("--do_predict", "--test_file", data, "--cpuaccel_backends", "onednn"),
    )
    assert done.code == 0, done.err
    assert read_tsv(tmp_path / "out" / "predictions.tsv")["text"] == heard
    found = results(tmp_path / "out", "predict")
    assert (found["cpuaccel_calls_optimized"], found["cpuaccel_calls_original"]) == (1, 0)
