"""Recognized texts: word error rates, and the file with predictions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torchmetrics.functional.text import word_error_rate
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from common.files import write_tsv
from speech_recognition.recordings import Source


def word_error_rates(said: Sequence[str], known: Iterable[str]) -> dict[str, float]:
    """Compare recognized texts with the right ones.

    Returns:
        ``wer``, of words as they are written, and ``wer_normalized``, of words in lower case
        without punctuation. Both are >= 0, and above 1 where more words are wrong than there are.
    """
    pairs = {"wer": (list(said), list(known))}
    normalize = BasicTextNormalizer()
    pairs["wer_normalized"] = (
        [normalize(text) for text in pairs["wer"][0]],
        [normalize(text) for text in pairs["wer"][1]],
    )
    return {name: round(word_error_rate(*texts).item(), 6) for name, texts in pairs.items()}


def write_texts(folder: Path, sources: Sequence[Source], texts: Sequence[str]) -> None:
    """Write ``predictions.tsv``: the path or the number of each recording, and its text."""
    write_tsv(
        folder / "predictions.tsv",
        {
            "audio": [source["path"] or row for row, source in enumerate(sources)],
            "text": texts,
        },
    )
