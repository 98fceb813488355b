"""How good the tags are: precision, recall and F1 of whole entities, and accuracy of tags."""

from collections.abc import Iterable, Sequence

from nervaluate.evaluator import Evaluator

from common.exits import ExampleError

Tags = list[list[str]]

OUTSIDE = "O"


def inside(tag: str) -> str:
    """The tag of what goes on with an entity, given that of how it begins."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def check_tags(tags: Iterable[str], asked: str) -> None:
    """See that tags mark entities in the way that is scored.

    An entity begins at B-, and at I- where no entity of its kind goes on, as conlleval has it.

    Raises:
        ExampleError: a tag is neither O nor begins with B- or I-.
    """
    for tag in tags:
        if tag != OUTSIDE and tag[:2] not in ("B-", "I-"):
            raise ExampleError(
                f"{asked} was asked for, but its tag {tag} marks no entity that could be scored. "
                "Tags have to be O, or to begin with B- or I-"
            )


def score(found: Tags, known: Tags) -> dict[str, float]:
    """Compare tags with those that are known.

    Args:
        found: of each sentence.
        known: as many.

    Returns:
        ``precision``, ``recall`` and ``f1`` of entities, right where both their words and their
        kind are; ``accuracy`` of tags. All from 0 to 1.
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
        "accuracy": round(sum(mine == theirs for mine, theirs in pairs) / len(pairs), 6),
    }
