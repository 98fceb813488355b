"""The results of a search so far, and the processes of the best candidates."""

from collections.abc import Sequence

from cpuaccel.tuning.decisions.result import CandidateStatus, Row
from cpuaccel.tuning.runoff import Finalist
from cpuaccel.tuning.workers.parent import Workers
from cpuaccel.tuning.workers.timing import by_batch

FINALISTS = 5

NEAR = 0.75
"""A candidate takes part in the run-off from this share of the best candidate's speedup on. What
slows a machine down for a while slows eager down more than fused code, so speedups that were
measured at different times differ by more than their intervals."""


class Board:
    """The results of a search.

    Attributes:
        rows: in the order of trying; after ``rank``, the best first.
        finalists: the best candidates, whose processes are alive.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.finalists: list[Finalist] = []

    def add(self, row: Row, worker: Workers, memory_limit: int) -> None:
        """Add a row; keep the best processes, within ``memory_limit`` bytes or only one."""
        self.rows.append(row)
        if row.speedup is None:
            worker.close()
            return
        self.finalists.append((row, worker))
        self._keep_the_best(memory_limit)

    @property
    def best(self) -> Row | None:
        """The candidate with the highest speedup so far."""
        measured = [row for row in self.rows if row.speedup is not None]
        return max(measured, key=_speed, default=None)

    def to_beat(self, batches: int) -> tuple[float, ...]:
        """Return the best speedup so far on each batch, at least eager's own, which is 1."""
        measured = [by_batch(row.rounds) for row in self.rows if row.rounds]
        each = zip(*measured) if measured else [()] * batches
        return tuple(max([1.0, *(s.median for s in batch)]) for batch in each)

    def rank(self, finalists: Sequence[Row]) -> None:
        """Order the rows: the finalists first, in this order, and what was not measured last."""
        placed = {row.candidate for row in finalists}
        others = [row for row in self.rows if row.candidate not in placed]
        rows = [*finalists, *sorted(others, key=_speed, reverse=True)]
        self.rows = sorted(rows, key=lambda row: row.status is not CandidateStatus.MEASURED)

    def close(self) -> None:
        """End the processes."""
        for _, worker in self.finalists:
            worker.close()
        self.finalists.clear()

    def _keep_the_best(self, memory_limit: int) -> None:
        # Candidates with other numbers of threads were compared with another eager: only the
        # run-off compares them with the rest.
        ranked = sorted(
            self.finalists, key=lambda f: (f[0].candidate.threads is not None, -_speed(f[0]))
        )
        best = _speed(ranked[0][0])
        resident = 0
        for place, (row, worker) in enumerate(ranked):
            resident += worker.resident()
            near = place < FINALISTS and _speed(row) >= NEAR * best
            near = near or row.candidate.threads is not None
            if place and not (resident <= memory_limit and near):
                self.finalists.remove((row, worker))
                worker.close()


def _speed(row: Row) -> float:
    return 0.0 if row.speedup is None else row.speedup.median
