"""The rows that wait for a worker, and the requests that they belong to."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cpuaccel.integrations.batching.groups import first_batch
from cpuaccel.integrations.batching.task import Row

RowT = TypeVar("RowT", bound=Row)
Output = TypeVar("Output")


class Request(Generic[Output]):
    """Rows that are answered together.

    Attributes:
        future: gets the outputs in order, or the error of the first row that failed. It stays
            pending while rows are computed, so that it can be cancelled at any time.
    """

    def __init__(self, rows: int) -> None:
        self.future: Future[list[Output]] = Future()
        self._rows = rows
        self._outputs: dict[int, Output] = {}

    def answer(self, index: int, output: Output) -> bool:
        """Take the output of one row; return whether that answers the request."""
        self._outputs[index] = output
        if len(self._outputs) < self._rows:
            return False
        outputs = [self._outputs[position] for position in range(self._rows)]
        return self._finish(lambda: self.future.set_result(outputs))

    def fail(self, error: Exception) -> bool:
        """Fail the request; return whether it was unfinished."""
        return self._finish(lambda: self.future.set_exception(error))

    def _finish(self, finish: Callable[[], None]) -> bool:
        try:
            finish()
        except InvalidStateError:  # cancelled, or another row failed
            return False
        return True


@dataclass(frozen=True, eq=False)
class Entry(Generic[RowT, Output]):
    """One row of a request, which arrived at a time of the monotonic clock."""

    request: Request[Output]
    index: int
    row: RowT
    arrived: float = field(default_factory=time.monotonic)


class WaitingRows(Generic[RowT, Output]):
    """Rows in order of arrival. Not thread-safe.

    Attributes:
        tokens: tokens of all rows.
    """

    def __init__(self) -> None:
        self._entries: dict[Entry[RowT, Output], None] = {}
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: Request[Output], rows: Sequence[RowT]) -> None:
        """Append the rows of a request."""
        for index, row in enumerate(rows):
            self._entries[Entry(request, index, row)] = None
            self.tokens += row.tokens

    def take(self, tokens: int) -> list[Entry[RowT, Output]]:
        """Remove and return the next batch, of at most so many tokens or one row."""
        entries = list(self._entries)
        chosen = first_batch([entry.row.tokens for entry in entries], tokens)
        batch = [entries[position] for position in chosen]
        self._remove(batch)
        return batch

    def take_all(self) -> list[Entry[RowT, Output]]:
        """Remove and return all rows."""
        entries = list(self._entries)
        self._remove(entries)
        return entries

    def discard(self, future: "Future[list[Output]]") -> int:
        """Remove the rows of a request, and return how many there were."""
        entries = [entry for entry in self._entries if entry.request.future is future]
        self._remove(entries)
        return len(entries)

    def _remove(self, entries: Sequence[Entry[RowT, Output]]) -> None:
        for entry in entries:
            del self._entries[entry]
            self.tokens -= entry.row.tokens
