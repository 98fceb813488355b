"""What a ``Batcher`` needs: see ``cpuaccel.integrations.tasks`` for such tasks."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Row(Protocol):
    """One tokenized text, or pair of texts."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""


Item = TypeVar("Item", contravariant=True)
RowT = TypeVar("RowT", bound=Row)
Output = TypeVar("Output", covariant=True)


class Task(Protocol[Item, RowT, Output]):
    """Both methods are called from several threads."""

    def encode(self, items: Sequence[Item]) -> list[RowT]:
        """Tokenize."""

    def run(self, rows: Sequence[RowT]) -> Sequence[Output]:
        """Compute one batch, and return an output for each row."""
