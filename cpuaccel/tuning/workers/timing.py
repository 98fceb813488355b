"""Timing a candidate against eager on a noisy machine: in pairs, until it is clear enough."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WARM_UP = 2
LONG_WARM_UP = 0.5
"""Seconds after which one pass was warm-up enough: both have answered before, in being compared."""

FEWEST_PAIRS = 3
MOST_PAIRS = 300
CLEAR_PAIRS = 9
"""From here on the interval leaves the furthest values out, and a narrow one ends the timing."""

NARROW = 0.02
HOPELESS = {1: 0.5, 2: 0.75}
"""After so few pairs: below this share of the best candidate's speed one is given up."""

HOPELESS_LATER = 0.9
CHEAP = 1.0
"""Seconds up to which the first few pairs are made in any case: short calls are the noisiest."""

Pair = tuple[float, float]
"""Seconds of the baseline and of the candidate, one right after the other."""

Round = tuple[Pair, ...]
"""One pair for each batch."""


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the baseline.

    Attributes:
        median: of the rounds.
        low: lower end of the median's confidence interval (95 percent from 6 rounds on; with
            fewer, the least of them).
        high: its upper end.
        rounds: how many.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Speedup":
        """From each round's ratio.

        The interval is the sign test's: it assumes nothing of how the noise is distributed, and
        the same figures give the same interval.
        """
        ordered = sorted(ratios)
        rank = _rank(len(ordered))
        return cls(statistics.median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))

    @property
    def significant(self) -> bool:
        """Whether it is surely faster than the baseline."""
        return self.rounds >= FEWEST_PAIRS and self.low > 1

    @property
    def slower(self) -> bool:
        """Whether it is surely slower than the baseline."""
        return self.rounds >= FEWEST_PAIRS and self.high < 1

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def ratios(rounds: Sequence[Round], weights: Sequence[float]) -> list[float]:
    """Each round's speedup: the baseline's weighted time over the candidate's."""
    return [
        sum(w * baseline for w, (baseline, _) in zip(weights, round_))
        / sum(w * candidate for w, (_, candidate) in zip(weights, round_))
        for round_ in rounds
    ]


def by_batch(rounds: Sequence[Round]) -> list[Speedup]:
    """The speedup on each batch by itself."""
    return [Speedup.of([b / c for b, c in pairs]) for pairs in zip(*rounds)]


def measure(
    baseline: Sequence[Callable[[], object]],
    candidate: Sequence[Callable[[], object]],
    weights: Sequence[float],
    *,
    seconds: float,
    to_beat: Sequence[float],
) -> list[Round]:
    """Time two ways of answering the same batches, in turn.

    Args:
        baseline: one call for each batch.
        candidate: the same.
        weights: how often each batch is called.
        seconds: no new round is begun after this long, but for the first few.
        to_beat: for each batch the best speedup so far; a candidate that surely stays below it on
            all of them is given up.

    Returns:
        The rounds: which of the two came first changes from one to the next.
    """
    for calls in (baseline, candidate):
        begun = time.perf_counter()
        for _ in range(WARM_UP):
            if time.perf_counter() - begun <= LONG_WARM_UP:
                for call in calls:
                    call()
    rounds: list[Round] = []
    begun = time.perf_counter()
    while len(rounds) < MOST_PAIRS:
        first = len(rounds) % 2 == 0
        rounds.append(tuple(_pair(b, c, first) for b, c in zip(baseline, candidate)))
        share = HOPELESS.get(len(rounds), HOPELESS_LATER)
        cheap = len(rounds) < FEWEST_PAIRS and time.perf_counter() - begun < CHEAP
        if not cheap and all(s.high < share * best for s, best in zip(by_batch(rounds), to_beat)):
            break
        speedup = Speedup.of(ratios(rounds, weights))
        if len(rounds) >= CLEAR_PAIRS and speedup.high - speedup.low < NARROW * speedup.median:
            break
        if len(rounds) >= FEWEST_PAIRS and time.perf_counter() - begun > seconds:
            break
    return rounds


def passes(calls: Sequence[Callable[[], object]], *, seconds: float) -> list[list[float]]:
    """Time one way of answering by itself, after one pass that does not count where it is short.

    Args:
        calls: one for each batch.
        seconds: no new pass is begun after this long; one is always made, and one is enough where
            it is long.

    Returns:
        Seconds of each batch, pass by pass.
    """
    first = [_time(call) for call in calls]
    if sum(first) > LONG_WARM_UP:
        return [first]
    times: list[list[float]] = []
    begun = time.perf_counter()
    while not times or time.perf_counter() - begun < seconds:
        times.append([_time(call) for call in calls])
    return times


def _pair(baseline: Callable[[], object], candidate: Callable[[], object], first: bool) -> Pair:
    if first:
        return _time(baseline), _time(candidate)
    later = _time(candidate)
    return _time(baseline), later


def _time(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _rank(count: int, doubt: float = 0.025) -> int:
    """How many values from either end the median's interval begins, counted from 1.

    The median lies below the r-th least of n values with the probability that fewer than r of n
    coins show heads.
    """
    rank, below = 0, 0.0
    while rank < count:
        below += math.comb(count, rank) * 0.5**count
        if below > doubt:
            break
        rank += 1
    return max(rank, 1)
