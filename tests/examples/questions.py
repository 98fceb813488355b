"""Questions that the small question-answering model can be asked, as many as a test needs."""

import json
import random
from pathlib import Path

from tests.examples.conftest import WORDS


def write_questions(path: Path, count: int) -> Path:
    """Write so many, a context of 20 words each, the same ones every time."""
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
