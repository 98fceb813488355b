"""Precision, recall and F1 of whole entities, and accuracy of tags."""

from collections.abc import Iterable, Sequence

from nervaluate.evaluator import Evaluator

from common.exits import ExampleError

Tags = list[list[str]]

OUTSIDE = "O"


def inside(tag: str) -> str:
    """Return the tag that continues an entity, given the tag that begins it."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def check_tags(tags: Iterable[str], origin: str) -> None:
    """Check that tags use the scheme that is scored.

    An entity begins at B-, and at I- without an entity of its kind before it, as in conlleval.

    Raises:
        ExampleError: a tag is not O and does not begin with B- or I-.
    """
    for tag in tags:
        if tag != OUTSIDE and tag[:2] not in ("B-", "I-"):
            raise ExampleError(f"{origin}: tags must be O or begin with B- or I-, got {tag}")


def score(found: Tags, known: Tags) -> dict[str, float]:
    """Compute the metrics.

    Args:
        found: predicted tags of each sentence.
        known: labels of the same shape.

    Returns:
        ``precision``, ``recall`` and ``f1`` of entities, which are correct if both their words and
        their kind are; ``accuracy`` of tags. All from 0 to 1.
    """
    kinds = sorted({tag[2:] for tags in (*found, *known) for tag in tags if tag != OUTSIDE})
    strict = Evaluator(known, found, tags=kinds, loader="list").evaluate()["overall"]["strict"]
    pairs: Sequence[tuple[str, str]] = [
        pair for sentence in zip(found, known) for pair in zip(*sentence)
    ]
    return {
        "precision": round(float(strict.precision), 6),
        "recall": round(float(strict.recall), 6),
        "f1": round(float(strict.f1), 6),
        "accuracy": round(sum(tag == label for tag, label in pairs) / len(pairs), 6),
    }
