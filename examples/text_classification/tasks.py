"""GLUE's nine tasks: what is in them, and how they are scored."""

from dataclasses import dataclass

HUB_NAME = "nyu-mll/glue"
"""GLUE on the hub."""


REGRESSION = ("pearson", "spearmanr")
"""The metrics of a regression; all others are of classes."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        columns: the one or two that hold the sentences.
        metrics: the ones that GLUE scores it by, by their names in ``metrics.METRICS``.
        positive: the class that F1 is about, by its name in GLUE.
        splits: what the names of the data's splits end in, beside validation and test, each with
            what the names of its results begin with.
    """

    columns: tuple[str, ...] = ("sentence1", "sentence2")
    metrics: tuple[str, ...] = ("accuracy",)
    positive: str | None = None
    splits: tuple[tuple[str, str], ...] = (("", ""),)


TASKS = {
    "cola": Task(("sentence",), ("matthews_correlation",)),
    "mnli": Task(("premise", "hypothesis"), splits=(("_matched", ""), ("_mismatched", "_mm"))),
    "mrpc": Task(metrics=("accuracy", "f1"), positive="equivalent"),
    "qnli": Task(("question", "sentence")),
    "qqp": Task(("question1", "question2"), ("accuracy", "f1"), positive="duplicate"),
    "rte": Task(),
    "sst2": Task(("sentence",)),
    "stsb": Task(metrics=REGRESSION),
    "wnli": Task(),
}
