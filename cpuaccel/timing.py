"""Timing callables on shared, noisy machines: interleaved, and compared pair by pair."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

REST = 0.01
"""Seconds between two calls. The threads of OpenMP and of some engines spin for some milliseconds
after a call, on cores that the next call needs."""

FEWEST_PAIRS = 3
"""Fewer pairs are not significant."""


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = float("inf"),
    warmup: int = 1,
    rest: float = REST,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time several callables in turn, so that drift of the machine affects all alike.

    Args:
        candidates: callables by name.
        rounds: maximum number of timed calls of each.
        seconds: no round starts after this long, except the first.
        warmup: untimed calls of each beforehand.
        rest: seconds to sleep before each timed call.
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
            time.sleep(rest)
            times[name].append(time_call(call))
            progress()
        if time.perf_counter() - begun > seconds:
            break
    return times


def format_number(number: float) -> str:
    """Return a number from 0 up with three digits or, from 1,000 on, without decimals."""
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:,.{digits}f}"


def format_ratio(ratio: float) -> str:
    """Return a ratio that varies from measurement to measurement, with two digits."""
    digits = 0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2
    return f"{ratio:,.{digits}f}"


def format_ms(milliseconds: float) -> str:
    """Return milliseconds as ``format_number`` does, with the unit."""
    return f"{format_number(milliseconds)} ms"


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that ``percent`` of 100 values do not exceed, interpolated."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True)
class Ratio:
    """Speed relative to a baseline: median and quartiles of the ratios of paired times."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def from_times(cls, baseline: Sequence[float], candidate: Sequence[float]) -> "Ratio":
        """Compare the seconds of calls that were timed in turn; there is at least one pair."""
        ratios = [b / c for b, c in zip(baseline, candidate, strict=True)]
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0], 1)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high, len(ratios))

    def __str__(self) -> str:
        if self.pairs < FEWEST_PAIRS:
            return f"{self.median:.2f}x ({'1 pair' if self.pairs == 1 else f'{self.pairs} pairs'})"
        return f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Speedup(Ratio):
    """A ratio whose spread is the 95 percent confidence interval of the median.

    With fewer than 6 pairs ``low`` and ``high`` are the least and the largest ratio.
    """

    @classmethod
    def from_ratios(cls, ratios: Sequence[float]) -> "Speedup":
        """Summarize paired ratios.

        The interval is the sign test's: it assumes nothing about the distribution of the noise,
        and it is deterministic.
        """
        ordered = sorted(ratios)
        rank = _interval_rank(len(ordered))
        return cls(statistics.median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))

    @property
    def significant(self) -> bool:
        """Whether the candidate is significantly faster than the baseline."""
        return self.pairs >= FEWEST_PAIRS and self.low > 1

    @property
    def slower(self) -> bool:
        """Whether the candidate is significantly slower than the baseline."""
        return self.pairs >= FEWEST_PAIRS and self.high < 1


def _interval_rank(count: int, doubt: float = 0.025) -> int:
    """Return the rank from either end, counted from 1, at which the median's interval begins.

    The median lies below the r-th smallest of n values with the probability that fewer than r of
    n coins show heads.
    """
    rank, below = 0, 0.0
    while rank < count:
        below += math.comb(count, rank) * 0.5**count
        if below > doubt:
            break
        rank += 1
    return max(rank, 1)
