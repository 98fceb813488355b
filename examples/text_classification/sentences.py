"""Reading sentences and their labels: from a file, or from a dataset on the hub."""

from typing import NamedTuple

from datasets import Dataset

from common.arguments import ModelArguments
from common.columns import as_text
from common.data import first, from_rows, load_hub_dataset, local_file, require_columns
from common.tables import read_rows
from text_classification.arguments import GlueArguments
from text_classification.tasks import Task


class Sentences(NamedTuple):
    """One split of the data.

    Attributes:
        stage: ``eval`` or ``predict``.
        suffix: of the names of results: ``_mm`` for the second split of MNLI, else empty.
        rows: with the columns of text and, for ``eval``, label.
        columns: the one or two columns of text.
        asked: the option and its value that named the data, for errors.
    """

    stage: str
    suffix: str
    rows: Dataset
    columns: tuple[str, ...]
    asked: str


def load_sentences(data: GlueArguments, model: ModelArguments, stage: str) -> list[Sentences]:
    """Load the data of a stage: one split, or MNLI's two from the hub.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, or something is missing in it.
    """
    file = local_file(data, stage)
    if file is not None:
        asked = f"{file[1]} {file[0]}"
        return [_prepared(data, stage, "", from_rows(read_rows(*file), asked), asked)]
    split = {"eval": "validation", "predict": "test"}[stage]
    return [
        _prepared(
            data,
            stage,
            suffix,
            load_hub_dataset(data, model, stage, [f"{split}{ending}"]),
            f"--dataset_name {data.dataset_name}",
        )
        for ending, suffix in (data.task or Task()).splits
    ]


def _prepared(data: GlueArguments, stage: str, suffix: str, rows: Dataset, asked: str) -> Sentences:
    if data.task is not None:
        columns = data.task.columns
    else:
        columns = ("sentence1", *(["sentence2"] if "sentence2" in rows.column_names else []))
    require_columns(rows.column_names, (*columns, "label") if stage == "eval" else columns, asked)
    rows = first(rows, data.max_eval_samples if stage == "eval" else data.max_predict_samples)
    return Sentences(stage, suffix, as_text(rows, columns, asked), columns, asked)
