"""Comparing speeds on machines that are shared and noisy: in turn, and pair by pair."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

REST = 0.01
"""Seconds between two calls. The threads of OpenMP and of some engines spin for some milliseconds
after a call, on cores that the next call needs: its time would be that of its neighbour."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline, from pairs timed one after the other.

    Attributes:
        median: of the pairs' ratios, baseline time over candidate time.
        low: the pairs' lower quartile.
        high: the pairs' upper quartile.
        pairs: how many pairs.
    """

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, baseline: Sequence[float], candidate: Sequence[float]) -> "Ratio":
        """From seconds that were measured in turn.

        Args:
            baseline: seconds of each call, at least one.
            candidate: seconds of each call, as many.
        """
        ratios = sorted(b / c for b, c in zip(baseline, candidate, strict=True))
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0], 1)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high, len(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = float("inf"),
    warmup: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time several callables in turn, so that a drift of the machine meets all alike.

    Args:
        candidates: callables by name.
        rounds: times that each is called and timed, at most.
        seconds: no new round is begun after this long; one round is always made.
        warmup: untimed calls of each beforehand.
        progress: called after every timed call.

    Returns:
        Seconds of each call by name; all lists have the same length.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        for _ in range(warmup):
            call()
    begun = time.perf_counter()
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(REST)
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
            progress()
        if time.perf_counter() - begun > seconds:
            break
    return times
