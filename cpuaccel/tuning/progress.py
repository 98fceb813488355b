"""Progress of a search, for its observers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cpuaccel.tuning.decisions.result import Row

logger = logging.getLogger("cpuaccel")


@dataclass(frozen=True)
class Snapshot:
    """The state of a search; ``begun`` is on ``time.monotonic``'s clock."""

    doing: str
    rows: tuple[Row, ...]
    weights: tuple[float, ...]
    waiting: int
    begun: float
    budget: float


Progress = Callable[[Snapshot], None]


@contextmanager
def warn_if_interrupted() -> Iterator[Progress]:
    """If Ctrl-C ends a search, log the results so far, which may have taken minutes.

    Yields:
        The search's ``progress``.
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
                "search interrupted, no decision saved; measured so far: %s", "; ".join(measured)
            )
        raise
