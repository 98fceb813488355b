"""Timing a candidate in turn with eager until the result is clear, and by itself."""

import functools
import time
from collections.abc import Callable, Sequence

from cpuaccel.model.signature import Inputs
from cpuaccel.timing import FEWEST_PAIRS, Speedup, time_call

WARM_UP = 2
LONG_WARM_UP = 0.5
"""Seconds after which one warm-up pass is enough: both were called before, when their outputs were
compared."""

MOST_PAIRS = 300
CLEAR_PAIRS = 9
"""From here on the interval leaves the extreme values out, and a narrow one ends the timing."""

NARROW = 0.02
HOPELESS = {1: 0.5, 2: 0.75}
"""After so few pairs: a candidate below this share of the best speedup is given up."""

HOPELESS_LATER = 0.9
CHEAP = 1.0
"""Seconds within which the first few pairs are always timed: short calls are the noisiest."""

Call = Callable[[], object]

Pair = tuple[float, float]
"""Seconds of the baseline and of the candidate, timed one right after the other."""

Round = tuple[Pair, ...]
"""One pair for each batch."""


def on_each(call: Callable[[Inputs], object], batches: Sequence[Inputs]) -> list[Call]:
    """Return a callable for each batch."""
    return [functools.partial(call, batch) for batch in batches]


def ratios(rounds: Sequence[Round], weights: Sequence[float]) -> list[float]:
    """Return each round's speedup: the baseline's weighted time over the candidate's."""
    return [
        sum(w * baseline for w, (baseline, _) in zip(weights, round_))
        / sum(w * candidate for w, (_, candidate) in zip(weights, round_))
        for round_ in rounds
    ]


def by_batch(rounds: Sequence[Round]) -> list[Speedup]:
    """Return the speedup on each batch."""
    return [Speedup.from_ratios([b / c for b, c in pairs]) for pairs in zip(*rounds)]


def measure(
    baseline: Sequence[Call],
    candidate: Sequence[Call],
    weights: Sequence[float],
    *,
    seconds: float,
    to_beat: Sequence[float],
) -> list[Round]:
    """Time in alternating order; give up if significantly below ``to_beat`` on all batches."""
    for calls in (baseline, candidate):
        begun = time.perf_counter()
        for _ in range(WARM_UP):
            if time.perf_counter() - begun <= LONG_WARM_UP:
                for call in calls:
                    call()
    rounds: list[Round] = []
    begun = time.perf_counter()
    while len(rounds) < MOST_PAIRS:
        baseline_first = len(rounds) % 2 == 0
        rounds.append(tuple(_pair(b, c, baseline_first) for b, c in zip(baseline, candidate)))
        share = HOPELESS.get(len(rounds), HOPELESS_LATER)
        cheap = len(rounds) < FEWEST_PAIRS and time.perf_counter() - begun < CHEAP
        if not cheap and all(s.high < share * best for s, best in zip(by_batch(rounds), to_beat)):
            break
        speedup = Speedup.from_ratios(ratios(rounds, weights))
        if len(rounds) >= CLEAR_PAIRS and speedup.high - speedup.low < NARROW * speedup.median:
            break
        if len(rounds) >= FEWEST_PAIRS and time.perf_counter() - begun > seconds:
            break
    return rounds


def passes(calls: Sequence[Call], *, seconds: float) -> list[list[float]]:
    """Time passes over all batches. The first counts only if it is long; else it is the warm-up."""
    begun = time.perf_counter()
    times = [[time_call(call) for call in calls]]
    if sum(times[0]) <= LONG_WARM_UP:
        times.clear()
        begun = time.perf_counter()
    while not times or time.perf_counter() - begun < seconds:
        times.append([time_call(call) for call in calls])
    return times


def _pair(baseline: Call, candidate: Call, baseline_first: bool) -> Pair:
    if baseline_first:
        return time_call(baseline), time_call(candidate)
    candidate_seconds = time_call(candidate)
    return time_call(baseline), candidate_seconds
