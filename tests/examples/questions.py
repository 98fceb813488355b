"""Questions for the small question-answering model."""

import json
import random
from pathlib import Path

from tests.examples.conftest import WORDS


def write_questions(path: Path, count: int) -> Path:
    """Write a number of questions with contexts of 20 words, the same on every call."""
    chance = random.Random(0)
    rows = [
        {
            "id": str(row),
            "question": "what was the city ?",
            "context": (context := " ".join(chance.choices(WORDS, k=20))),
            "answers": {"text": [context[:5]], "answer_start": [0]},
        }
        for row in range(count)
    ]
    path.write_text(json.dumps(rows))
    return path
