"""What was found so far, and the best candidates' processes, kept for the last decision."""

from collections.abc import Sequence

from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Row, Standing
from cpuaccel.tuning.runoff import Finalist
from cpuaccel.tuning.workers.parent import Worker
from cpuaccel.tuning.workers.timing import by_batch

FINALISTS = 5

NEAR = 0.75
"""Share of the best candidate's speedup from which a candidate comes to the run-off. What slows a
machine down for a while slows eager down more than fused code, so that speedups measured one after
the other differ by more than their intervals tell."""


class Board:
    """The rows of a search.

    Attributes:
        rows: the candidates tried so far, in the order of trying; once decided, the best first.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._kept: dict[Candidate, Worker] = {}

    def add(self, row: Row, worker: Worker, memory_limit: int) -> None:
        """Note a candidate, and keep its process while it is one of the best.

        Args:
            row: what was found.
            worker: its process; ended, now or later.
            memory_limit: bytes that the processes kept may hold together; the best stays anyway.
        """
        self.rows.append(row)
        if row.speedup is None:
            worker.close()
            return
        self._kept[row.candidate] = worker
        self._keep_the_best(memory_limit)

    @property
    def best(self) -> Row | None:
        """The one that is fastest over eager so far."""
        measured = [row for row in self.rows if row.speedup is not None]
        return max(measured, key=_speed, default=None)

    def to_beat(self, batches: int) -> tuple[float, ...]:
        """The best speedup so far on each of so many batches; eager's own, which is 1, at least."""
        measured = [by_batch(row.rounds) for row in self.rows if row.rounds]
        each = zip(*measured) if measured else [()] * batches
        return tuple(max([1.0, *(s.median for s in batch)]) for batch in each)

    @property
    def finalists(self) -> list[Finalist]:
        """Those whose processes were kept."""
        return [(self._row(candidate), worker) for candidate, worker in self._kept.items()]

    def decide(self, ranked: Sequence[Row]) -> None:
        """Put the finalists first, in this order, and what was not measured last."""
        placed = {row.candidate for row in ranked}
        others = [row for row in self.rows if row.candidate not in placed]
        rows = [*ranked, *sorted(others, key=_speed, reverse=True)]
        self.rows = sorted(rows, key=lambda row: row.standing is not Standing.MEASURED)

    def close(self) -> None:
        """End the processes that were kept."""
        for worker in self._kept.values():
            worker.close()
        self._kept.clear()

    def _keep_the_best(self, memory_limit: int) -> None:
        # Other numbers of threads were measured against eager with as many: that compares with
        # nothing but the run-off.
        ranked = sorted(
            self.finalists, key=lambda f: (f[0].candidate.threads is not None, -_speed(f[0]))
        )
        best = _speed(ranked[0][0])
        held = 0
        for place, (row, worker) in enumerate(ranked):
            held += worker.resident()
            near = place < FINALISTS and _speed(row) >= NEAR * best
            near = near or row.candidate.threads is not None
            if place and not (held <= memory_limit and near):
                self._kept.pop(row.candidate).close()

    def _row(self, candidate: Candidate) -> Row:
        return next(row for row in self.rows if row.candidate == candidate)


def _speed(row: Row) -> float:
    return 0.0 if row.speedup is None else row.speedup.median
