"""F1 and exact match of answers."""

from collections.abc import Mapping

from datasets import Dataset
from torchmetrics.functional.text import squad


def score(questions: Dataset, best: Mapping[str, str]) -> dict[str, float]:
    """Compute the metrics.

    Args:
        questions: rows with the columns id and answers; an empty answer is correct for a question
            without answers.
        best: predicted answers by id.

    Returns:
        ``f1`` and ``exact_match`` in percent; if some questions have no answer, also separately for
        those with (``HasAns_``) and without answers (``NoAns_``).
    """
    known = dict(zip(questions["id"], (answers["text"] for answers in questions["answers"])))
    groups = {
        "": known,
        "HasAns_": {name: texts for name, texts in known.items() if texts},
        "NoAns_": {name: texts for name, texts in known.items() if not texts},
    }
    if not groups["NoAns_"]:
        groups = {"": known}
    return {
        f"{prefix}{name}": round(value.item(), 4)
        for prefix, group in groups.items()
        if group
        for name, value in sorted(
            squad(
                [{"id": name, "prediction_text": best[name]} for name in group],
                [{"id": name, "answers": _reference(texts)} for name, texts in group.items()],
            ).items(),
            reverse=True,
        )
    }


def _reference(texts: list[str]) -> dict[str, list[str] | list[int]]:
    # The metric needs an answer; the empty one stands for none.
    texts = texts or [""]
    return {"text": texts, "answer_start": [0] * len(texts)}
