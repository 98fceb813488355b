"""Dispatch: whether calls of different shapes are faster with different candidates."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from cpuaccel.timing import FEWEST_PAIRS
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Axis, Row, Rule
from cpuaccel.tuning.workers.timing import by_batch
from cpuaccel.tuning.workload import Shape

WORTH = 1.03
"""Speedup over one candidate for all calls from which dispatch is used: it needs more memory."""

Costs = Mapping[Candidate, Sequence[float]]
"""Weighted seconds for each batch, by candidate."""


def find_rule(winner: Row, rows: Sequence[Row], shapes: Sequence[Shape]) -> Rule | None:
    """Find how two candidates best divide the calls; None if not significantly faster than one."""
    eager = [statistics.median(e for e, _ in pairs) for pairs in zip(*winner.rounds)]
    weighted = [w * e for w, e in zip(winner.weights, eager)]
    speedups = {r.candidate: by_batch(r.rounds) for r in rows if len(r.rounds) >= FEWEST_PAIRS}
    expected = {c: [w / s.median for w, s in zip(weighted, ss)] for c, ss in speedups.items()}
    pessimistic = {c: [w / s.low for w, s in zip(weighted, ss)] for c, ss in speedups.items()}
    alone = expected[winner.candidate]
    best: Rule | None = None
    for axis, bound, below in _cuts(shapes):
        low = _cheapest(expected, below)
        high = _cheapest(expected, [not b for b in below])
        if low == high:
            continue
        chosen = [low if b else high for b in below]
        total = sum(expected[c][i] for i, c in enumerate(chosen))
        # Candidates other than the winner count with the lower end of their interval.
        at_most = sum(
            (expected if c == winner.candidate else pessimistic)[c][i] for i, c in enumerate(chosen)
        )
        gain = sum(alone) / total
        if gain >= WORTH and at_most < sum(alone) and (best is None or gain > best.gain):
            best = Rule(axis, bound, low, high, gain)
    return best


def _cuts(shapes: Sequence[Shape]) -> Iterator[tuple[Axis, float, list[bool]]]:
    """Yield every bound between two adjacent values: axis, bound, which shapes are below it."""
    for axis in get_args(Axis):
        values = [float(getattr(shape, axis)) for shape in shapes]
        for lower, upper in zip(sorted(set(values)), sorted(set(values))[1:]):
            middle = (lower + upper) / 2
            bound = middle if axis == "padding" else float(int(middle))
            yield axis, bound, [value <= bound for value in values]


def _cheapest(costs: Costs, among: Sequence[bool]) -> Candidate:
    return min(costs, key=lambda c: sum(cost for cost, here in zip(costs[c], among) if here))
