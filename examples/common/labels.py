"""The classes of a model, looked up by labels in the data."""

from collections.abc import Iterable

from datasets import ClassLabel, Dataset
from transformers import PretrainedConfig

from common.exits import ExampleError
from cpuaccel.errors import did_you_mean

SHOWN = 8
"""Number of classes that an error lists."""


class Labels:
    """The classes of a model.

    Attributes:
        names: names of the classes, in the order of the model's outputs.
    """

    def __init__(self, config: PretrainedConfig, data: Dataset, column: str) -> None:
        """Read the names from a model's config.

        Args:
            config: config of the model.
            data: the data. If its column has names for its labels, they name the classes of a model
                without names.
            column: name of the column with the labels; it may be missing.
        """
        of_data = _names(data.features.get(column))
        own = [str(name) for _, name in sorted((config.id2label or {}).items())]
        unnamed = own == [f"LABEL_{number}" for number in range(len(own))]
        if unnamed and of_data is not None and len(of_data) <= len(own):
            own[: len(of_data)] = of_data
        self.names = own
        self._of_data = of_data
        self._numbers = {name: number for number, name in enumerate(own)}
        folded = {name.casefold(): number for name, number in self._numbers.items()}
        self._folded = folded if len(folded) == len(own) else {}
        # If a class has the name 1, the label 1 is a name, not a number.
        self._counted = not any(name.isdecimal() for name in own)

    def number(self, label: object) -> int | None:
        """Look up a label by its name, ignoring case, or by its number.

        Args:
            label: a name, or a number: that of the data where the data has names.

        Returns:
            The index of the class in the model's outputs; None if the model has no such class.
        """
        if self._of_data is not None and isinstance(label, int):
            label = self._of_data[label] if 0 <= label < len(self._of_data) else label
        name = str(label)
        if name in self._numbers:
            return self._numbers[name]
        if name.casefold() in self._folded:
            return self._folded[name.casefold()]
        if self._counted and name.isdecimal() and int(name) < len(self.names):
            return int(name)
        return None

    def numbers(self, labels: Iterable[object], origin: str) -> list[int]:
        """Look up the labels of a dataset.

        Args:
            labels: one for each row.
            origin: the option and its value that name the data, for errors.

        Raises:
            ExampleError: the model has no such class.
        """
        found = []
        for row, label in enumerate(labels, 1):
            number = self.number(label)
            if number is None:
                raise self.unknown(label, row, origin)
            found.append(number)
        return found

    def unknown(self, label: object, row: int, origin: str) -> ExampleError:
        """Make the error for a label without a class."""
        more = len(self.names) - SHOWN
        known = ", ".join(self.names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return ExampleError(
            f"{origin}: the model has no class for the label {label} of row {row}"
            f"{did_you_mean(str(label), self.names)} Classes: {known}. Correct the label, or "
            "id2label and label2id in the model's config.json"
        )


def _names(feature: object) -> list[str] | None:
    """Return the names of the labels in a column of a dataset; None if it has no names."""
    inner = getattr(feature, "feature", feature)  # for a list of labels
    return list(inner.names) if isinstance(inner, ClassLabel) else None
