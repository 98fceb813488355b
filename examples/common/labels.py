"""Which of a model's classes a label in the data is."""

from collections.abc import Iterable, Sequence

import datasets
from transformers import PretrainedConfig

from common.exits import ExampleError
from cpuaccel.errors import did_you_mean

SHOWN = 8
"""How many of a model's classes an error names."""


class Labels:
    """The classes of a model.

    Attributes:
        names: their names, in the order of the model's outputs.
    """

    def __init__(self, config: PretrainedConfig, of_data: Sequence[str] | None = None) -> None:
        """Read the names from a model's config.

        Args:
            config: of the model.
            of_data: the names of the data's labels, in the order of their numbers, where the data
                knows them; they are what the classes of a model without names are called.
        """
        own = [str(name) for _, name in sorted((config.id2label or {}).items())]
        unnamed = own == [f"LABEL_{number}" for number in range(len(own))]
        if unnamed and of_data is not None and len(of_data) <= len(own):
            own[: len(of_data)] = of_data
        self.names = own
        self._of_data = of_data
        self._numbers = {name: number for number, name in enumerate(own)}
        folded = {name.casefold(): number for name, number in self._numbers.items()}
        self._folded = folded if len(folded) == len(own) else {}
        # Where a class is called 1, the label 1 is its name, wherever it stands.
        self._counted = not any(name.isdecimal() for name in own)

    def number(self, label: object) -> int | None:
        """Which class a label is: by its name, in capitals or not, or by its number.

        Args:
            label: a name, or a number: the data's own where the data has names.

        Returns:
            The class's place in the model's outputs; None if the model has no such class.
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

    def numbers(self, labels: Iterable[object], asked: str) -> list[int]:
        """Which classes the labels of a dataset are.

        Args:
            labels: one a row.
            asked: the option and its value that named the data, for errors.

        Raises:
            ExampleError: the model has no such class.
        """
        found = []
        for row, label in enumerate(labels, 1):
            number = self.number(label)
            if number is None:
                raise self.unknown(label, row, asked)
            found.append(number)
        return found

    def unknown(self, label: object, row: int, asked: str) -> ExampleError:
        """What to raise for a label that the model has no class for."""
        more = len(self.names) - SHOWN
        known = ", ".join(self.names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return ExampleError(
            f"{asked} was asked for, but the label {label} of row {row} in it is none of the "
            f"model's{did_you_mean(str(label), self.names)} Those are: {known}. Mend the label, "
            "or id2label and label2id in the model's config.json"
        )


def names_in_data(feature: object) -> list[str] | None:
    """The names of the labels in a dataset's column; None where it has no names for them."""
    inner = getattr(feature, "feature", feature)  # of a list of labels
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None
