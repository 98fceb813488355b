"""The last decision: the best few candidates timed against each other, turn by turn."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from cpuaccel.timing import FEWEST_PAIRS, Speedup
from cpuaccel.tuning.decisions.result import Row, Standing
from cpuaccel.tuning.workers.parent import Died, Worker
from cpuaccel.tuning.workers.timing import CLEAR_PAIRS, NARROW

TURN_SECONDS = 0.3
MOST_TURNS = 15

SLOWER = 0.95
"""Who stayed below this share of the fastest's speed in each of the first few turns is out."""

MANY_TURNS = 6
"""From here on the interval itself tells who is out."""

TIE = 0.99
"""Who comes this near to the fastest is as fast, and may win by being simpler."""

Finalist = tuple[Row, Worker]


def run_off(finalists: Sequence[Finalist], weights: Sequence[float], deadline: float) -> list[Row]:
    """Time the finalists in turn, each in its own process while the others wait.

    Their speedups over eager come from processes of their own, which may differ by some percent
    in where their memory lies and what the machine was doing; this does not.

    Args:
        finalists: the best candidates, and their processes.
        weights: how often each batch is called.
        deadline: when to end, on ``time.monotonic``'s clock; one turn of each is always made.

    Returns:
        Their rows, the winner first, with how many times as fast as the winner each is.
    """
    times: list[list[float]] = [[] for _ in finalists]
    rows = [row for row, _ in finalists]
    alive = list(range(len(finalists)))
    took = 0.0
    for turn in range(MOST_TURNS):
        begun = time.monotonic()
        if turn and begun + took > deadline:
            break
        # The one that comes after a certain other should not always be the same.
        for index in alive[turn % len(alive) :] + alive[: turn % len(alive)]:
            try:
                limit = max(_patience(rows[index]), deadline - time.monotonic())
                found = finalists[index][1].turn(TURN_SECONDS, limit)
            except Died as death:
                rows[index] = replace(
                    rows[index], standing=Standing(death.kind), reason=death.reason
                )
                continue
            times[index].append(
                statistics.median(sum(w * t for w, t in zip(weights, p)) for p in found.times)
            )
        alive = [index for index in alive if rows[index].standing is Standing.MEASURED]
        alive = in_reach(alive, times)
        if len(alive) < 2 or _narrow([times[index] for index in alive]):
            break
        took = time.monotonic() - begun
    timed = [index for index, row in enumerate(rows) if row.standing is Standing.MEASURED]
    return ranked([(rows[index], times[index]) for index in timed]) + [
        row for row in rows if row.standing is not Standing.MEASURED
    ]


def _patience(row: Row) -> float:
    """Seconds after which a turn of what was timed before is a hang."""
    return 5.0 + 10 * max((sum(c for _, c in round_) for round_ in row.rounds), default=0.0)


def ranked(timed: Sequence[tuple[Row, Sequence[float]]]) -> list[Row]:
    """Order candidates by their seconds turn by turn, the winner first.

    Args:
        timed: each with its seconds, all from the first turn on; who was out early has fewer.
    """
    if not timed:
        return []
    turns = max(len(times) for _, times in timed)
    last = [one for one in timed if len(one[1]) == turns]
    # By pairs with one of them: a median of times would meet each with another drift.
    fastest = max(last, key=lambda one: _against(last[0][1], one[1]).median)[1]
    near = [one for one in last if _against(fastest, one[1]).median >= TIE]
    winner = min(
        near,
        key=lambda one: (
            len(one[0].candidate.steps),
            one[0].build_seconds > 2 * min(row.build_seconds for row, _ in near),
            -_against(fastest, one[1]).median,
        ),
    )
    others = sorted(
        (one for one in timed if one is not winner),
        key=lambda one: -_against(winner[1], one[1]).median,
    )
    return [replace(row, runoff=_against(winner[1], times)) for row, times in (winner, *others)]


def _against(baseline: Sequence[float], times: Sequence[float]) -> Speedup:
    return Speedup.from_ratios([b / t for b, t in zip(baseline, times)])


def in_reach(alive: Sequence[int], times: Sequence[Sequence[float]]) -> list[int]:
    """Those that are not surely slower than the fastest, so that turns go to who may win.

    Args:
        alive: indices of who is still timed; all have had as many turns.
        times: seconds of each, turn by turn.
    """
    turns = min((len(times[index]) for index in alive), default=0)
    if turns < FEWEST_PAIRS:
        return list(alive)
    leader = max(alive, key=lambda index: _against(times[alive[0]], times[index]).median)
    least = TIE if turns >= MANY_TURNS else SLOWER
    return [i for i in alive if _against(times[leader], times[i]).high >= least]


def _narrow(times: Sequence[Sequence[float]]) -> bool:
    """Whether the figures are as narrow as they need to be."""
    leader = max(times, key=lambda t: _against(times[0], t).median)
    others = [_against(leader, t) for t in times if t is not leader]
    return len(leader) >= CLEAR_PAIRS and all(s.high - s.low < NARROW for s in others)
