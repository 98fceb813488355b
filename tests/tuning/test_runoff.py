import pytest

from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import CandidateStatus, Row
from cpuaccel.tuning.runoff import drop_slower, rank

DRIFT = [1.0, 1.3, 0.9, 1.1, 1.0, 1.2]
"""Drift of the machine, in factors by turn."""


def times(seconds: float, turns: int = len(DRIFT)) -> list[float]:
    return [seconds * factor for factor in DRIFT[:turns]]


def row(*steps: str, build_seconds: float = 1.0) -> Row:
    return Row(
        candidate=Candidate(steps, "float32"),
        status=CandidateStatus.MEASURED,
        build_seconds=build_seconds,
    )


def names(rows: list[Row]) -> list[str]:
    return [one.candidate.name for one in rows]


def test_ranks_by_speed_despite_drift() -> None:
    found = rank([(row("a"), times(1.05)), (row("b", "c"), times(1.0)), (row("d"), times(1.2))])
    assert names(found) == ["b,c", "a", "d"]
    assert [one.runoff and one.runoff.median for one in found] == [
        1.0,
        pytest.approx(1 / 1.05),
        pytest.approx(1 / 1.2),
    ]


def test_a_tie_goes_to_fewer_steps_then_to_the_shorter_build() -> None:
    assert names(rank([(row("a", "b"), times(1.0)), (row("c"), times(1.005))]))[0] == "c"
    slow = row("a", build_seconds=60.0)
    assert names(rank([(slow, times(1.0)), (row("c"), times(1.005))]))[0] == "c"
    assert names(rank([(row("a", "b"), times(1.0)), (row("c"), times(1.02))]))[0] == "a,b"


def test_a_dropped_candidate_does_not_win() -> None:
    lucky = rank([(row("out"), times(0.99, turns=3)), (row("a"), times(1.0))])
    assert names(lucky) == ["a", "out"]


def test_ranks_no_candidates() -> None:
    assert rank([]) == []


def test_drops_significantly_slower_candidates() -> None:
    two, three, six = ([times(s, turns=n) for s in (1.0, 1.03, 1.1)] for n in (2, 3, 6))
    assert drop_slower([0, 1, 2], two) == [0, 1, 2]
    assert drop_slower([0, 1, 2], three) == [0, 1]
    assert drop_slower([0, 1, 2], six) == [0]
    noisy = [times(1.0), [1.03, 1.2, 0.93, 1.13, 1.0, 1.19]]
    assert drop_slower([0, 1], noisy) == [0, 1]
