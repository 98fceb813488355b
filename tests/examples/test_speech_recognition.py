"""run_ctc.py with a small model, each run in its own process."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
datasets = pytest.importorskip("datasets")
soundfile = pytest.importorskip("soundfile")

from torchmetrics.text import CharErrorRate, WordErrorRate  # noqa: E402

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import Rows, read_tsv, write_rows  # noqa: E402
from tests.examples.models import balance, distinct_model  # noqa: E402
from tests.examples.results import assert_jit_made_all_outputs, pipelines, results  # noqa: E402

SCRIPT = "speech_recognition/run_ctc.py"
RATE = 16000
COUNT = 7


class Trained(NamedTuple):
    """A saved model, recordings, and its output for each alone."""

    folder: Path
    sounds: list[Path]
    hears: list[str]

    @property
    def known(self) -> list[str]:
        """The labels: the outputs, except for the last word of every third."""
        texts = [text.split() for text in self.hears]
        return [
            " ".join([*words[:-1], "zzz"] if row % 3 == 2 else words)
            for row, words in enumerate(texts)
        ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("wav2vec2")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    model = distinct_model("wav2vec2", None)
    random = np.random.default_rng(0)
    sounds = folder / "sounds"
    sounds.mkdir()
    paths, logits = [], []
    for row in range(COUNT):
        path = sounds / f"{row}.{('wav', 'flac')[row % 2]}"
        sound = 0.3 * random.standard_normal(3000 + 1700 * (row * 5 % COUNT))
        soundfile.write(path, np.clip(sound, -1, 1), RATE)
        paths.append(path)
        read, _ = soundfile.read(path, dtype="float32")
        with torch.no_grad():
            batch = extractor([read], sampling_rate=RATE, return_tensors="pt")
            logits.append(model(**batch).logits[0].numpy())
    balanced = balance(model.lm_head, np.concatenate(logits))
    # More word boundaries, so that there are several words.
    often = float(balanced.std())
    balanced[:, letters.index("|")] += often
    with torch.no_grad():
        model.lm_head.bias[letters.index("|")] += often
    ends = np.cumsum([len(each) for each in logits])[:-1]
    tokens = [part.argmax(axis=1) for part in np.split(balanced, ends)]
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Trained(folder, paths, [tokenizer.decode(each) for each in tokens])


def listed(trained: Trained, audio: str = "audio") -> Rows:
    """Return paths relative to the folder of the list, except for the first."""
    return [
        {audio: str(path) if row == 0 else f"sounds/{path.name}", "text": text}
        for row, (path, text) in enumerate(zip(trained.sounds, trained.known))
    ]


def word_errors(trained: Trained) -> float:
    metric = WordErrorRate()
    metric.update(trained.hears, trained.known)
    return float(metric.compute())


def test_the_model_outputs_words(trained: Trained) -> None:
    assert len(set(trained.hears)) == COUNT
    assert all(len(text.split()) > 1 for text in trained.hears)
    assert 0 < word_errors(trained) < 0.5


@pytest.mark.parametrize(("suffix", "audio"), [("csv", "audio"), ("jsonl", "path")])
def test_lists_of_files(
    example: Example, trained: Trained, tmp_path: Path, suffix: str, audio: str
) -> None:
    data = write_rows(trained.folder / f"list.{suffix}", listed(trained, audio))
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, "--do_predict", "--test_file", data),
        *("--per_device_eval_batch_size", 3),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["wer"] == pytest.approx(word_errors(trained), abs=1e-6)
    assert found["samples"] == COUNT
    predicted = read_tsv(tmp_path / "out" / "predictions.tsv")
    assert [Path(path).name for path in predicted["audio"]] == [p.name for p in trained.sounds]
    assert predicted["text"] == trained.hears


@pipelines
def test_a_pipeline_scores_as_eager(
    example: Example, trained: Trained, tmp_path: Path, options: list[str]
) -> None:
    data = write_rows(trained.folder / "list.json", listed(trained))
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, "--per_device_eval_batch_size", 3),
        *(*options, "--compare_with_eager"),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["wer"] == found["eager_wer"] == pytest.approx(word_errors(trained), abs=1e-6)
    assert_jit_made_all_outputs(found)


def test_in_bfloat16_the_outputs_are_those_of_the_cast_model(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    data = write_rows(trained.folder / "list.json", listed(trained))
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, "--do_predict", "--test_file", data),
        *("--bf16_full_eval", "--no_cuda", "--compare_with_eager"),
        *("--per_device_eval_batch_size", 1),
    )
    assert done.code == 0, done.err
    assert results(tmp_path / "out")["eager_wer"] == pytest.approx(word_errors(trained), abs=1e-6)
    predicted = read_tsv(tmp_path / "out" / "predictions.tsv")
    # Differs from float32: with random weights, the cast changes most letters.
    wrong_letters = CharErrorRate()(predicted["text"], heard_in_bfloat16(trained))
    assert float(wrong_letters) < 0.05


def heard_in_bfloat16(trained: Trained) -> list[str]:
    model = transformers.Wav2Vec2ForCTC.from_pretrained(trained.folder).bfloat16().eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(trained.folder)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(trained.folder)
    texts = []
    for path in trained.sounds:
        sound, _ = soundfile.read(path, dtype="float32")
        given = extractor([sound], sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            logits = model(given["input_values"].bfloat16(), given["attention_mask"]).logits
        texts.append(tokenizer.decode(logits[0].argmax(dim=-1)))
    return texts


def test_a_dataset_and_a_checkpoint_without_weights_for_training(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    model.mkdir()
    for path in trained.folder.glob("*.json"):
        (model / path.name).write_bytes(path.read_bytes())
    weights = load_file(trained.folder / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    # The weight for masking in training is missing in the checkpoint.
    (model / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.05}))
    assert not any("masked_spec_embed" in name for name in weights)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    sounds: list[dict[str, Any]] = [
        {"path": None, "bytes": path.read_bytes()} for path in trained.sounds
    ]
    made = datasets.Dataset.from_dict(
        {"audio": sounds, "text": trained.known, "speaker": [1] * COUNT}
    ).cast_column("audio", datasets.Audio(sampling_rate=RATE))
    datasets.DatasetDict(validation=made).save_to_disk(tmp_path / "data")
    done = example(
        SCRIPT,
        *("--model_name_or_path", model, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--dataset_name", tmp_path / "data"),
    )
    assert done.code == 0, done.err
    assert results(tmp_path / "out")["wer"] == pytest.approx(word_errors(trained), abs=1e-6)


def test_channels_are_averaged(example: Example, trained: Trained, tmp_path: Path) -> None:
    sound, _ = soundfile.read(trained.sounds[0], dtype="float32")
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    stereo = np.stack([sound + noise, sound - noise], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, subtype="FLOAT")
    data = write_rows(tmp_path / "list.csv", [{"audio": "stereo.wav"}])
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_predict", "--test_file", data),
    )
    assert done.code == 0, done.err
    assert read_tsv(tmp_path / "out" / "predictions.tsv")["text"] == trained.hears[:1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "--validation_file {data} is empty"),
        ("audio\nx.wav\n", "--validation_file {data} has no column text."),
        ("text\nx\n", "--validation_file {data} has no column audio."),
        ("audio,text\nx.wav,a\n", "the recording {folder}/x.wav can't be read: no such file"),
        ("audio,text\nno.wav,a\n", "the recording {folder}/no.wav can't be read: it is corrupt or"),
        (
            "audio,text\nslow.wav,a\n",
            "the recording {folder}/slow.wav has 8000 samples per second, but the model needs "
            "16000. Convert it, for example with: ffmpeg -i IN -ar 16000 OUT",
        ),
        ("audio,text\nnone.wav,a\n", "the recording {folder}/none.wav is empty. Remove it"),
        ("audio,text\nshort.wav,a\n", "the recording {folder}/short.wav is too short for the"),
    ],
)
def test_invalid_lists(
    example: Example, trained: Trained, tmp_path: Path, content: str, message: str
) -> None:
    data = tmp_path / "list.csv"
    data.write_text(content)
    (tmp_path / "no.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "slow.wav", np.zeros(800), 8000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(5), RATE)
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data),
    )
    done.assert_error(f"error: {message.format(data=data, folder=tmp_path)}")
    assert not list((tmp_path / "out").iterdir())
