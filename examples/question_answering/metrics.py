"""How good the answers are: F1 and exact match."""

from collections.abc import Mapping

from datasets import Dataset
from torchmetrics.functional.text import squad


def score(questions: Dataset, best: Mapping[str, str]) -> dict[str, float]:
    """Compare answers with those that are known.

    Args:
        questions: with the columns id and answers; where a question has none, giving none is
            right.
        best: the answers to compare, by id.

    Returns:
        ``f1`` and ``exact_match`` in percent; where some questions have no answer, also those of
        the ones that have (``HasAns_``) and of those that haven't (``NoAns_``).
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
    # The metric knows no question without an answer; an empty answer counts as right for one.
    texts = texts or [""]
    return {"text": texts, "answer_start": [0] * len(texts)}
