"""How far a search is, for whoever watches it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cpuaccel.tuning.decisions.result import Row

logger = logging.getLogger("cpuaccel")


@dataclass(frozen=True)
class Snapshot:
    """How far a search is.

    Attributes:
        doing: what is being done.
        rows: the candidates tried so far.
        weights: how often each batch is called.
        waiting: how many are left.
        begun: when it began, on ``time.monotonic``'s clock.
        budget: seconds that it may take.
    """

    doing: str
    rows: tuple[Row, ...]
    weights: tuple[float, ...]
    waiting: int
    begun: float
    budget: float


Progress = Callable[[Snapshot], None]


@contextmanager
def told_if_interrupted() -> Iterator[Progress]:
    """Warn with what was measured if Ctrl-C ends a search: minutes of work are not to be lost.

    Yields:
        What the search tells its progress to.
    """
    rows: tuple[Row, ...] = ()

    def remember(snapshot: Snapshot) -> None:
        nonlocal rows
        rows = snapshot.rows

    try:
        yield remember
    except KeyboardInterrupt:
        measured = [
            f"{row.candidate} {row.speedup} as fast as eager" for row in rows if row.speedup
        ]
        if measured:
            logger.warning(
                "the search was interrupted, and nothing was written. Measured until then: %s",
                "; ".join(measured),
            )
        raise
