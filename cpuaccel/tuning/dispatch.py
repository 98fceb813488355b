"""Whether calls of different shapes should be answered by different candidates."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from cpuaccel.timing import FEWEST_PAIRS
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Row, Rule
from cpuaccel.tuning.workers.timing import by_batch
from cpuaccel.tuning.workload import Shape

WORTH = 1.03
"""How many times as fast it has to be as one candidate for all: two models take more memory."""

AXES = ("length", "padding", "rows")

Costs = Mapping[Candidate, Sequence[float]]
"""Expected seconds by candidate, for each batch, weighted."""


def find_rule(
    winner: Row, rows: Sequence[Row], shapes: Sequence[Shape], weights: Sequence[float]
) -> Rule | None:
    """Look for the bound on one axis that two candidates best share the calls at.

    Args:
        winner: the best for all calls.
        rows: the candidates that were measured.
        shapes: of the batches.
        weights: how often each is called.

    Returns:
        None where one candidate for all is as good, as far as the figures can tell.
    """
    eager = [statistics.median(e for e, _ in pairs) for pairs in zip(*winner.rounds)]
    weighted = [w * e for w, e in zip(weights, eager)]
    measured = [row for row in rows if len(row.rounds) >= FEWEST_PAIRS]
    expected = {
        row.candidate: [c / s.median for c, s in zip(weighted, by_batch(row.rounds))]
        for row in measured
    }
    surely = {
        row.candidate: [c / s.low for c, s in zip(weighted, by_batch(row.rounds))]
        for row in measured
    }
    alone = expected[winner.candidate]
    best: Rule | None = None
    for axis, bound, below in _cuts(shapes):
        low = _cheapest(expected, below)
        high = _cheapest(expected, [not b for b in below])
        if low == high:
            continue
        chosen = [low if b else high for b in below]
        total = sum(expected[c][i] for i, c in enumerate(chosen))
        # Where another than the winner answers, it has to be better even if it was lucky.
        certain = sum(
            (expected if c == winner.candidate else surely)[c][i] for i, c in enumerate(chosen)
        )
        gain = sum(alone) / total
        if gain >= WORTH and certain < sum(alone) and (best is None or gain > best.gain):
            best = Rule(axis, bound, low, high, gain)
    return best


def _cuts(shapes: Sequence[Shape]) -> Iterator[tuple[str, float, list[bool]]]:
    """Every bound between two neighbouring values: the axis, the bound, who is below it."""
    for axis in AXES:
        values = [float(getattr(shape, axis)) for shape in shapes]
        for lower, upper in zip(sorted(set(values)), sorted(set(values))[1:]):
            middle = (lower + upper) / 2
            bound = middle if axis == "padding" else float(int(middle))
            yield axis, bound, [value <= bound for value in values]


def _cheapest(costs: Costs, among: Sequence[bool]) -> Candidate:
    return min(costs, key=lambda c: sum(cost for cost, here in zip(costs[c], among) if here))
