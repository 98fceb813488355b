"""Progress of a search, for its observers."""

import logging
import time
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
    waiting: int
    begun: float
    budget: float

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.begun


@dataclass
class Progress:
    """Called by a search when its activity changes; keeps the latest snapshot."""

    show: Callable[[Snapshot], object] = lambda snapshot: None
    latest: Snapshot | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        """Keep and show a snapshot."""
        self.latest = snapshot
        self.show(snapshot)


@contextmanager
def warn_if_interrupted() -> Iterator[Progress]:
    """If Ctrl-C ends a search, log the results so far, which may have taken minutes."""
    progress = Progress()
    try:
        yield progress
    except KeyboardInterrupt:
        rows = progress.latest.rows if progress.latest else ()
        measured = [f"{r.candidate} {r.speedup} as fast as eager" for r in rows if r.speedup]
        if measured:
            logger.warning(
                "search interrupted, no decision saved; measured so far: %s", "; ".join(measured)
            )
        raise
