import pytest

from cpuaccel.cli.bench.results import RowStatus, judge, merge
from cpuaccel.report import CAST_STEP, Outcome, Status, VariantReport

JIT = Outcome("jit", Status.APPLIED)
CAST = Outcome(CAST_STEP, Status.APPLIED)
FAILED = Outcome("jit", Status.FAILED, "it changes the outputs")
UNCAST = Outcome(CAST_STEP, Status.FAILED, "it changes the outputs")
IPEX = Outcome("ipex", Status.SKIPPED, "it is not installed", "Install it")


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ((JIT,), RowStatus.APPLIED),
        ((CAST, JIT), RowStatus.APPLIED),
        ((IPEX, JIT), RowStatus.PARTLY),
        ((UNCAST, JIT), RowStatus.PARTLY),
        ((CAST, FAILED), RowStatus.NOT_APPLIED),
        ((IPEX, FAILED), RowStatus.NOT_APPLIED),
    ],
)
def test_status(outcomes: tuple[Outcome, ...], status: RowStatus) -> None:
    judged, notes = judge(outcomes, {})
    assert judged is status
    assert notes == tuple(str(o) for o in outcomes if o.status is not Status.APPLIED)


def test_calls_that_the_original_served() -> None:
    status, notes = judge((JIT,), {"NaN": 3})
    assert status is RowStatus.PARTLY
    assert notes == ("the original served 3 calls: NaN",)


def test_merge_returns_the_worst_outcome_of_all_variants() -> None:
    variants = [VariantReport("a", (CAST, JIT)), VariantReport("b", (CAST, FAILED))]
    assert merge(variants) == merge(variants[::-1]) == (CAST, FAILED)
