"""The nine tasks of GLUE: their data and their metrics."""

from dataclasses import dataclass

HUB_NAME = "nyu-mll/glue"
"""The name of GLUE on the hub."""


REGRESSION = ("pearson", "spearmanr")
"""The metrics of a regression; all others are for classes."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        columns: the one or two columns with the sentences.
        metrics: names in ``metrics.METRICS`` of the metrics that GLUE uses.
        positive: name in GLUE of the positive class of F1.
        splits: suffixes of the splits validation and test, each with the suffix of its results.
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
