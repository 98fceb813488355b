"""The run-off: the best candidates timed against each other, turn by turn."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from cpuaccel.timing import FEWEST_PAIRS, Speedup
from cpuaccel.tuning.decisions.result import CandidateStatus, Row
from cpuaccel.tuning.workers.parent import WorkerFailure, Workers
from cpuaccel.tuning.workers.timing import CLEAR_PAIRS, NARROW

TURN_SECONDS = 0.3
MOST_TURNS = 15

SLOWER = 0.95
"""A candidate below this share of the fastest one's speed in each of the first turns is dropped."""

MANY_TURNS = 6
"""From here on the confidence interval decides who is dropped."""

TIE = 0.99
"""A candidate this near to the fastest is as fast, and wins if it is simpler."""

Finalist = tuple[Row, Workers]


def run_off(finalists: Sequence[Finalist], deadline: float) -> list[Row]:
    """Time the finalists in turn; return their rows with their speed relative to the first.

    Their speedups over eager were measured at different times, in processes that may differ by
    some percent in memory placement.
    """
    times: list[list[float]] = [[] for _ in finalists]
    rows = [row for row, _ in finalists]
    alive = list(range(len(finalists)))
    turn_seconds = 0.0
    for turn in range(MOST_TURNS):
        begun = time.monotonic()
        if turn and begun + turn_seconds > deadline:
            break
        # Rotate, so that no candidate always follows the same one.
        for index in alive[turn % len(alive) :] + alive[: turn % len(alive)]:
            try:
                limit = max(_hang_timeout(rows[index]), deadline - time.monotonic())
                (passes,) = finalists[index][1].run(TURN_SECONDS, limit)
            except WorkerFailure as failure:
                rows[index] = replace(rows[index], status=failure.status, reason=failure.reason)
                continue
            weights = rows[index].weights
            times[index].append(
                statistics.median(sum(w * t for w, t in zip(weights, p)) for p in passes)
            )
        alive = [index for index in alive if rows[index].status is CandidateStatus.MEASURED]
        alive = drop_slower(alive, times)
        if len(alive) < 2 or _narrow([times[index] for index in alive]):
            break
        turn_seconds = time.monotonic() - begun
    timed = [index for index, row in enumerate(rows) if row.status is CandidateStatus.MEASURED]
    return rank([(rows[index], times[index]) for index in timed]) + [
        row for row in rows if row.status is not CandidateStatus.MEASURED
    ]


def _hang_timeout(row: Row) -> float:
    """Return the seconds after which a turn of a candidate that was timed before is a hang."""
    return 5.0 + 10 * max((sum(c for _, c in round_) for round_ in row.rounds), default=0.0)


def rank(timed: Sequence[tuple[Row, Sequence[float]]]) -> list[Row]:
    """Order candidates by their seconds in each turn, the winner first."""
    if not timed:
        return []
    turns = max(len(times) for _, times in timed)
    last = [one for one in timed if len(one[1]) == turns]
    # By pairs with one of them, since medians of times would include different drift.
    fastest = max(last, key=lambda one: _relative(last[0][1], one[1]).median)[1]
    near = [one for one in last if _relative(fastest, one[1]).median >= TIE]
    winner = min(
        near,
        key=lambda one: (
            len(one[0].candidate.steps),
            one[0].build_seconds > 2 * min(row.build_seconds for row, _ in near),
            -_relative(fastest, one[1]).median,
        ),
    )
    others = sorted(
        (one for one in timed if one is not winner),
        key=lambda one: -_relative(winner[1], one[1]).median,
    )
    return [replace(row, runoff=_relative(winner[1], times)) for row, times in (winner, *others)]


def _relative(baseline: Sequence[float], times: Sequence[float]) -> Speedup:
    return Speedup.from_ratios([b / t for b, t in zip(baseline, times)])


def drop_slower(alive: Sequence[int], times: Sequence[Sequence[float]]) -> list[int]:
    """Return those of the candidates, by index, that are not significantly slower."""
    turns = min((len(times[index]) for index in alive), default=0)
    if turns < FEWEST_PAIRS:
        return list(alive)
    leader = max(alive, key=lambda index: _relative(times[alive[0]], times[index]).median)
    least = TIE if turns >= MANY_TURNS else SLOWER
    return [i for i in alive if _relative(times[leader], times[i]).high >= least]


def _narrow(times: Sequence[Sequence[float]]) -> bool:
    leader = max(times, key=lambda t: _relative(times[0], t).median)
    others = [_relative(leader, t) for t in times if t is not leader]
    return len(leader) >= CLEAR_PAIRS and all(s.high - s.low < NARROW for s in others)
