"""Types of a dataset's columns."""

from collections.abc import Iterable

from datasets import Dataset, Value

from common.exits import ExampleError


def as_text(dataset: Dataset, columns: Iterable[str], origin: str) -> Dataset:
    """Convert columns to text: in CSV, a column of text may consist of numbers.

    Args:
        dataset: the data.
        columns: names of the columns.
        origin: the option and its value that name the data, for errors.

    Raises:
        ExampleError: a column is not text, or a row has no text in it.
    """
    for column in columns:
        feature = dataset.features[column]
        if not isinstance(feature, Value) or feature.dtype == "null":
            raise ExampleError(
                f"{origin}: the column {column} is not text. Give it text in every row"
            )
        dataset = dataset.cast_column(column, Value("string"))
        for row, text in enumerate(dataset[column], 1):
            if text is None:
                raise ExampleError(f"{origin}: row {row} has no {column}. Add one")
    return dataset
