"""What a benchmark found, as data."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from cpuaccel.cli.models.cases import Case
from cpuaccel.report import CAST_STEP, Outcome, Status, VariantReport
from cpuaccel.timing import Ratio

EAGER = "eager"


class Standing(enum.StrEnum):
    """Whether a row shows what its name says."""

    EAGER = "eager"
    APPLIED = "applied"
    PARTLY = "partly applied"
    NOT_APPLIED = "not applied"
    REFUSED = "not run"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One pipeline, in one precision, on one case.

    Attributes:
        dtype: the precision.
        pipeline: the pipeline's name, or ``eager``.
        case: what was called.
        standing: whether the row shows what its name says.
        notes: for what was not applied or not answered, why.
        rounds: timed passes.
        median: milliseconds of a pass.
        p95: milliseconds that 95 of 100 passes stayed below.
        ratio: eager's time in the same precision over this one's, pair by pair.
        error: largest difference of an output from the float32 original's, relative to that
            output's magnitude, over real tokens.
        optimize_seconds: what building it took, checks included.
        peak_bytes: memory while building, at its highest, above what was held before; ``None``
            where the system does not tell.
    """

    dtype: str
    pipeline: str
    case: Case
    standing: Standing
    notes: tuple[str, ...] = ()
    rounds: int = 0
    median: float | None = None
    p95: float | None = None
    ratio: Ratio | None = None
    error: float | None = None
    optimize_seconds: float = 0.0
    peak_bytes: int | None = None
    outcomes: tuple[Outcome, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return {
            "dtype": self.dtype,
            "pipeline": self.pipeline,
            "batch_size": self.case.batch_size,
            "seq_len": self.case.seq_len,
            "batches": len(self.case.batches),
            "status": self.standing,
            "notes": self.notes,
            "rounds": self.rounds,
            "median_ms": self.median,
            "p95_ms": self.p95,
            "ratio": self.ratio and asdict(self.ratio),
            "error": self.error,
            "optimize_seconds": self.optimize_seconds,
            "peak_bytes": self.peak_bytes,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }


def merge(variants: Sequence[VariantReport]) -> tuple[Outcome, ...]:
    """One outcome for each step: the worst of any variant's, so that none hides behind another."""
    merged: dict[str, Outcome] = {}
    for outcome in (outcome for variant in variants for outcome in variant.outcomes):
        if merged.setdefault(outcome.step, outcome).status is Status.APPLIED:
            merged[outcome.step] = outcome
    return tuple(merged.values())


def judge(
    outcomes: Sequence[Outcome], fallbacks: Mapping[str, int]
) -> tuple[Standing, tuple[str, ...]]:
    """Whether a pipeline is what its name says, and why not.

    Args:
        outcomes: of its steps.
        fallbacks: number of calls that the original served, by reason.
    """
    amiss = [str(outcome) for outcome in outcomes if outcome.status is not Status.APPLIED]
    steps = [outcome for outcome in outcomes if outcome.step != CAST_STEP]
    if not any(step.status is Status.APPLIED for step in steps):
        return Standing.NOT_APPLIED, tuple(amiss)
    amiss += [f"the original served {n} calls: {reason}" for reason, n in fallbacks.items()]
    return (Standing.PARTLY if amiss else Standing.APPLIED), tuple(amiss)
