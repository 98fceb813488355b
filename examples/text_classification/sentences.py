"""Sentences and their labels, from a file or from a dataset on the hub."""

from typing import NamedTuple

from datasets import Dataset

from common.arguments import ModelArguments
from common.columns import as_text
from common.data import SPLITS, limit, load_rows, local_file, require_columns
from text_classification.arguments import GlueArguments
from text_classification.tasks import Task


class Sentences(NamedTuple):
    """One split of the data.

    Attributes:
        stage: ``eval`` or ``predict``.
        suffix: suffix of the names of results: ``_mm`` for the second split of MNLI, else empty.
        rows: rows with the columns of text and, for ``eval``, label.
        columns: names of the one or two columns of text.
        origin: the option and its value that name the data, for errors.
    """

    stage: str
    suffix: str
    rows: Dataset
    columns: tuple[str, ...]
    origin: str


def load_sentences(data: GlueArguments, model: ModelArguments, stage: str) -> list[Sentences]:
    """Load the data of a stage: one split, or MNLI's two from the hub.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read, or lacks a column or a text.
    """
    task = Task() if data.task is None or local_file(data, stage) is not None else data.task
    return [
        _prepared(
            data,
            stage,
            suffix,
            *load_rows(data, model, stage, splits=[f"{SPLITS[stage]}{ending}"]),
        )
        for ending, suffix in task.splits
    ]


def _prepared(
    data: GlueArguments, stage: str, suffix: str, rows: Dataset, origin: str
) -> Sentences:
    if data.task is not None:
        columns = data.task.columns
    else:
        columns = ("sentence1", *(["sentence2"] if "sentence2" in rows.column_names else []))
    require_columns(rows.column_names, (*columns, "label") if stage == "eval" else columns, origin)
    rows = as_text(limit(rows, data, stage), columns, origin)
    return Sentences(stage, suffix, rows, columns, origin)
