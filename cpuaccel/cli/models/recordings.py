"""Recordings with their texts, by which a search judges what it recognizes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cpuaccel.cli.models.load import import_transformers
from cpuaccel.cli.models.source import CONFIG_PREFIX, find_source
from cpuaccel.errors import ModelError, first_line
from cpuaccel.model.signature import Inputs

COLUMNS = ("audio", "text")


@dataclass(frozen=True)
class Recordings:
    """Recordings as a model reads them, and what is said in them.

    Attributes:
        batches: features, of one or more recordings each.
        texts: of all recordings.
        tokenizer: makes text of tokens.
    """

    batches: list[Inputs]
    texts: list[str]
    tokenizer: Any

    def accuracy(self, outputs: list[object]) -> float:
        """1 minus the word error rate of generated tokens, in lower case without punctuation."""
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer

        normalize = BasicTextNormalizer()
        said = [
            normalize(text).split()
            for tokens in outputs
            for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]
        known = [normalize(text).split() for text in self.texts]
        return 1 - sum(map(word_errors, said, known)) / sum(map(len, known))


def read_recordings(name: str, model: torch.nn.Module, file: Path, rows: int) -> Recordings:
    """Read the recordings that a CSV file lists, each as long as Whisper's encoder reads at most.

    Args:
        name: MODEL, which has a feature extractor and a tokenizer.
        model: generates from features of speech.
        file: has the columns audio, a path relative to its own folder, and text.
        rows: recordings of a batch.

    Raises:
        ModelError: the file or a recording can't be read, or the model doesn't fit.
    """
    if getattr(model, "main_input_name", "") != "input_features" or name.startswith(CONFIG_PREFIX):
        raise ModelError(f"--recordings needs a trained model for speech, got {name}. Leave it out")
    transformers, path = import_transformers(), find_source(name).path
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the processor of {name} can't be loaded: {first_line(error)}. Save it into the "
            "folder of the model"
        ) from error
    listed = _listed(file)
    sounds = [_samples(file.parent / Path(path).expanduser(), extractor) for path, _ in listed]
    return Recordings(
        [
            dict(extractor(some, sampling_rate=extractor.sampling_rate, return_tensors="pt"))
            for some in (sounds[i : i + rows] for i in range(0, len(sounds), rows))
        ],
        [text for _, text in listed],
        tokenizer,
    )


def _listed(file: Path) -> list[tuple[str, str]]:
    """The paths and the texts in a CSV file."""
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(f"{file} can't be read: {first_line(error)}. Pass a CSV file") from error
    pairs = [(row.get("audio"), row.get("text")) for row in rows]
    listed = [(path, text) for path, text in pairs if path and text and text.strip()]
    if not listed or len(listed) < len(pairs):
        raise ModelError(
            f"{file} must have the columns {' and '.join(COLUMNS)}, each filled, got "
            f"{len(pairs) - len(listed)} of {len(pairs)} rows that have not"
        )
    return listed


def _samples(path: Path, extractor: Any) -> Any:
    """The mean of a recording's channels, float32[samples]."""
    try:
        import soundfile
    except ImportError as error:
        raise ModelError(
            "--recordings needs soundfile, which is not installed. Run: pip install soundfile"
        ) from error
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ModelError(
            f"the recording {path} can't be read: {first_line(error)}. Repair or remove it"
        ) from error
    if rate != extractor.sampling_rate:
        raise ModelError(
            f"the recording {path} must have {extractor.sampling_rate} samples per second, got "
            f"{rate}. Convert it, for example with: ffmpeg -i IN -ar {extractor.sampling_rate} OUT"
        )
    if not 0 < len(sound) <= extractor.n_samples:
        raise ModelError(
            f"the recording {path} must have up to {extractor.n_samples / rate:g} seconds, got "
            f"{len(sound) / rate:g}. Cut it"
        )
    return sound.mean(axis=1)


def word_errors(said: Sequence[str], known: Sequence[str]) -> int:
    """Fewest words to insert, remove or replace (Levenshtein's distance)."""
    distances = list(range(len(known) + 1))
    for count, word in enumerate(said, 1):
        before, distances[0] = distances[0], count
        for place, other in enumerate(known, 1):
            replaced = before + (word != other)
            before = distances[place]
            distances[place] = min(replaced, before + 1, distances[place - 1] + 1)
    return distances[-1]
