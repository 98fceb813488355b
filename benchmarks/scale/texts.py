"""Real texts of mixed length: paragraphs, questions and sentences of SQuAD."""

import json
import random
from pathlib import Path
from typing import Any


def mixed_texts(file: Path, count: int) -> list[str]:
    """Read texts from a file in SQuAD's format, shuffled, repeated if it has too few."""
    paragraphs = _paragraphs(file)
    texts = [paragraph["context"] for paragraph in paragraphs]
    texts += [question["question"] for each in paragraphs for question in each["qas"]]
    texts += [s for each in paragraphs for s in each["context"].split(". ") if len(s) > 20]
    order = random.Random(0)  # noqa: S311 (no secret)
    order.shuffle(texts)
    repeated = texts * (1 + count // len(texts))
    return repeated[:count]


def paragraph_of_question(file: Path) -> dict[str, str]:
    """Read the questions, each with the paragraph that answers it."""
    return {q["question"]: each["context"] for each in _paragraphs(file) for q in each["qas"]}


def _paragraphs(file: Path) -> list[Any]:
    data = json.loads(file.read_text(encoding="utf-8"))["data"]
    return [paragraph for article in data for paragraph in article["paragraphs"]]
