"""Reading sentences and the tags of their words: from a file, or from a dataset on the hub."""

import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from common.arguments import ModelArguments
from common.data import limit, load_rows, require_columns
from common.exits import ExampleError
from common.tables import Row, read_rows
from token_classification.arguments import NerArguments
from token_classification.conll import read_conll

TABLES = (".csv", ".tsv", ".json", ".jsonl")
"""Files of rows; all others are CoNLL's."""


def load_sentences(data: NerArguments, model: ModelArguments, stage: str) -> tuple[Dataset, str]:
    """Load the data of a stage.

    Returns:
        A dataset with the columns tokens and, for ``eval``, ner_tags; and the option and its value
        that named it, for errors.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, or something is missing in it.
    """
    columns = ("tokens", "ner_tags") if stage == "eval" else ("tokens",)
    read = functools.partial(_read_file, columns=columns)
    dataset, asked = load_rows(data, model, stage, read=read)
    require_columns(dataset.column_names, columns, asked)
    dataset = limit(dataset, data, stage)
    if stage == "eval":
        for number, (tokens, tags) in enumerate(zip(dataset["tokens"], dataset["ner_tags"]), 1):
            if len(tokens) != len(tags):
                raise ExampleError(
                    f"{asked} was asked for, but row {number} in it has {len(tokens)} tokens and "
                    f"{len(tags)} ner_tags. Give each token one tag"
                )
    return dataset, asked


def _read_file(path: Path, option: str, columns: Sequence[str]) -> list[Row]:
    rows = read_rows(path, option) if path.suffix in TABLES else read_conll(path, option)
    require_columns(rows[0], columns, f"{option} {path}")
    return [
        {column: _list(row, column, number, f"{option} {path}") for column in columns}
        for number, row in enumerate(rows, 1)
    ]


def _list(row: Row, column: str, number: int, asked: str) -> list[Any]:
    value = row.get(column)
    if isinstance(value, str):  # from CSV, as JSON or as Python writes it
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    kinds = str if column == "tokens" else (str, int)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(each, kinds) for each in value)
    ):
        raise ExampleError(
            f"{asked} was asked for, but {column} in row {number} is {row.get(column)!r:.60}, not "
            f'a list of {"words" if column == "tokens" else "tags"}. Write it as in ["EU", "won"]'
        )
    return value
