"""Sentences and their translations, from a file or from a dataset on the hub."""

from typing import Any

from datasets import Dataset

from common.arguments import ModelArguments
from common.columns import as_text
from common.data import from_rows, limit, load_rows, require_columns
from common.exits import ExampleError
from translation.arguments import TranslationArguments
from translation.languages import named_in

TRANSLATION = "translation"
"""The column with a text for each language, in datasets on the hub."""


def load_sentences(data: TranslationArguments, model: ModelArguments, stage: str) -> Dataset:
    """Load the sentences of a stage.

    Returns:
        A dataset with the columns source and, for ``eval``, target.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read, or lacks a column or a text.
    """
    rows, origin = load_rows(data, model, stage)
    rows = limit(rows, data, stage)
    if TRANSLATION in rows.column_names:
        rows = from_rows(_texts(rows[TRANSLATION], origin), origin)
    assert data.source_lang is not None
    assert data.target_lang is not None
    columns = {named_in(rows.column_names, data.source_lang): "source"}
    if stage == "eval":
        columns[named_in(rows.column_names, data.target_lang)] = "target"
    require_columns(rows.column_names, columns, origin)
    rows = as_text(rows.select_columns(list(columns)), columns, origin)
    return rows.rename_columns(columns)


def _texts(translations: list[Any], origin: str) -> list[dict[str, Any]]:
    for row, translation in enumerate(translations, 1):
        if not isinstance(translation, dict):
            raise ExampleError(
                f"{origin}: the {TRANSLATION} of row {row} must be an object with a text for each "
                f"language, got a {type(translation).__name__}"
            )
    return translations
