"""How far a search is, for whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass

from cpuaccel.tuning.result import Row


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
