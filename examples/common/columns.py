"""Reading a dataset's columns as what they should be."""

from collections.abc import Iterable

from datasets import Dataset, Value

from common.exits import ExampleError


def as_text(dataset: Dataset, columns: Iterable[str], asked: str) -> Dataset:
    """A dataset with these columns as text: in CSV, a column of numbers may be meant as text.

    Args:
        dataset: the data.
        columns: their names.
        asked: the option and its value that named the data, for errors.

    Raises:
        ExampleError: a column is no text, or has none in some row.
    """
    for column in columns:
        feature = dataset.features[column]
        if not isinstance(feature, Value) or feature.dtype == "null":
            raise ExampleError(
                f"{asked} was asked for, but its column {column} is no text. Give it text in "
                "each row"
            )
        dataset = dataset.cast_column(column, Value("string"))
        for row, text in enumerate(dataset[column], 1):
            if text is None:
                raise ExampleError(
                    f"{asked} was asked for, but row {row} in it has no {column}. Give it one"
                )
    return dataset
