"""Sentences and the tags of their words, from a file or from a dataset on the hub."""

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
"""Suffixes of files of rows; all other files are in CoNLL format."""


def load_sentences(data: NerArguments, model: ModelArguments, stage: str) -> tuple[Dataset, str]:
    """Load the data of a stage.

    Returns:
        A dataset with the columns tokens and, for ``eval``, ner_tags; and the option with its value
        that names the data, for errors.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read, or lacks a column or a value.
    """
    columns = ("tokens", "ner_tags") if stage == "eval" else ("tokens",)
    read = functools.partial(_read_file, columns=columns)
    dataset, origin = load_rows(data, model, stage, read=read)
    require_columns(dataset.column_names, columns, origin)
    dataset = limit(dataset, data, stage)
    if stage == "eval":
        for number, (tokens, tags) in enumerate(zip(dataset["tokens"], dataset["ner_tags"]), 1):
            if len(tokens) != len(tags):
                raise ExampleError(
                    f"{origin}: row {number} has {len(tokens)} tokens and {len(tags)} ner_tags. "
                    "Give each token one tag"
                )
    return dataset, origin


def _read_file(path: Path, option: str, columns: Sequence[str]) -> list[Row]:
    rows = read_rows(path, option) if path.suffix in TABLES else read_conll(path, option)
    require_columns(rows[0], columns, f"{option} {path}")
    return [
        {column: _list(row, column, number, f"{option} {path}") for column in columns}
        for number, row in enumerate(rows, 1)
    ]


def _list(row: Row, column: str, number: int, origin: str) -> list[Any]:
    value = row.get(column)
    if isinstance(value, str):  # CSV has lists as JSON or as Python writes them
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
            f"{origin}: {column} in row {number} must be a list of "
            f'{"words" if column == "tokens" else "tags"} such as ["EU", "won"], '
            f"got {row.get(column)!r:.60}"
        )
    return value
