"""The results of a benchmark."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cpuaccel.report import CAST_STEP, Outcome, Status, VariantReport
from cpuaccel.timing import Ratio

EAGER = "eager"


class RowStatus(enum.StrEnum):
    """Whether the pipeline of a row was fully applied."""

    EAGER = "eager"
    APPLIED = "applied"
    PARTLY = "partly applied"
    NOT_APPLIED = "not applied"
    REFUSED = "not run"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pipeline, in one precision, on one case.

    Attributes:
        optimize_seconds: duration of the build, with its verification.
        peak_bytes: additional memory while building; None if unknown.
    """

    dtype: str
    pipeline: str
    case: str
    batch_size: int
    status: RowStatus
    notes: tuple[str, ...] = ()
    rounds: int = 0
    optimize_seconds: float = 0.0
    peak_bytes: int | None = None
    outcomes: tuple[Outcome, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return data that JSON can represent."""
        data = asdict(self)
        del data["case"]
        return data


@dataclass(frozen=True, kw_only=True)
class CallRow(Row):
    """A row about calls.

    Attributes:
        ratio: speedup over eager in the same precision.
        error: largest relative difference from the float32 original, over real tokens.
    """

    seq_len: int | None
    batches: int
    median_ms: float | None = None
    p95_ms: float | None = None
    ratio: Ratio | None = None
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class GenerateRow(Row):
    """A row about ``generate``.

    Attributes:
        num_beams: beams of the search.
        call_ms: median duration of the whole call.
        call_ratio: its speedup over eager in the same precision.
        real_time_factor: seconds of the call for a second of speech; None for other inputs.
        first_token_ms: median time to the first token, with the encoder; None in beam search.
        first_token_ratio: its speedup over eager in the same precision.
        tokens_per_second: median rate after the first token, over all rows of the batch; that of
            the whole call in beam search. None where there is one token only, as all that follow.
        ratio: its speedup over eager in the same precision.
        megabytes_per_token: weights and cache that were read for a new token, on average.
        share_of_bandwidth: bytes read a second, relative to what the memory allows.
        error: largest difference from the float32 original's logits, relative to the largest logit.
    """

    prompt_len: int | None
    num_beams: int = 1
    call_ms: float | None = None
    call_ratio: Ratio | None = None
    real_time_factor: float | None = None
    first_token_ms: float | None = None
    first_token_ratio: Ratio | None = None
    tokens_per_second: float | None = None
    ratio: Ratio | None = None
    megabytes_per_token: float | None = None
    share_of_bandwidth: float | None = None
    error: float | None = None


def merge(variants: Sequence[VariantReport]) -> tuple[Outcome, ...]:
    """Return one outcome for each step: the worst of all variants."""
    merged: dict[str, Outcome] = {}
    for outcome in (outcome for variant in variants for outcome in variant.outcomes):
        if merged.setdefault(outcome.step, outcome).status is Status.APPLIED:
            merged[outcome.step] = outcome
    return tuple(merged.values())


def judge(
    outcomes: Sequence[Outcome], fallbacks: Mapping[str, int]
) -> tuple[RowStatus, tuple[str, ...]]:
    """Return a pipeline's status and why; ``fallbacks`` counts calls of the original by reason."""
    notes = [str(outcome) for outcome in outcomes if outcome.status is not Status.APPLIED]
    steps = [outcome for outcome in outcomes if outcome.step != CAST_STEP]
    if not any(step.status is Status.APPLIED for step in steps):
        return RowStatus.NOT_APPLIED, tuple(notes)
    notes += [f"the original served {n} calls: {reason}" for reason, n in fallbacks.items()]
    return (RowStatus.PARTLY if notes else RowStatus.APPLIED), tuple(notes)
