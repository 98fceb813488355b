"""What one ``optimize`` did: outcomes, fidelity, speed, and the calls since then."""

import enum
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

from cpuaccel.timing import Ratio

CAST_STEP = "dtype"
"""The name among the outcomes of the cast to the pipeline's precision."""


class Status(enum.StrEnum):
    """The result of a step."""

    APPLIED = "applied"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """The result of one step, and why.

    Attributes:
        step: name of the backend.
        status: applied, skipped or failed.
        reason: why the step was not applied.
        remedy: what the user can do about it.
        evidence: what shows that the step took effect.
        seconds: time that the step took.
        bytes: growth of the process's resident memory during the step.
        restored: global settings that the step changed and that were restored.
    """

    step: str
    status: Status
    reason: str = ""
    remedy: str = ""
    evidence: Mapping[str, int | float | str] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: int = 0
    restored: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.status is not Status.APPLIED:
            remedy = f" {self.remedy}." if self.remedy else ""
            return f"{self.step}: {self.status}. {self.reason}.{remedy}"
        evidence = ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in self.evidence.items()
        )
        return f"{self.step}: applied in {self.seconds:.2f} s{f' ({evidence})' if evidence else ''}"


@dataclass(frozen=True)
class Difference:
    """How far one output tensor is from the original's.

    Attributes:
        probe: name of the inputs: ``example``, or what was varied.
        output: the tensor's path in the output, such as ``logits``.
        absolute: largest absolute difference over real tokens.
        relative: ``absolute`` divided by the largest magnitude in the original's tensor.
    """

    probe: str
    output: str
    absolute: float
    relative: float

    def __str__(self) -> str:
        return f"{self.output} differs by {self.absolute:.3g}, {self.relative:.3g} of its magnitude"


@dataclass(frozen=True)
class Fidelity:
    """How close the outputs of the optimized model are to the original's.

    Attributes:
        tolerance: largest relative difference that is accepted.
        differences: one for each probe and output tensor.
        frozen: axes (``batch``, ``length``) whose size is fixed in the optimized model; calls of
            other sizes get their own variant.
        unprobed: variations on which the original raises.
        refused: paddings on which the optimized model raises; such calls fall back to the original.
    """

    tolerance: float
    differences: tuple[Difference, ...]
    frozen: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def worst(self) -> Difference | None:
        """The largest relative difference."""
        return max(self.differences, key=lambda d: d.relative, default=None)

    def __str__(self) -> str:
        worst = self.worst
        if worst is None:
            return "no tensors to compare"
        probes = len({d.probe for d in self.differences})
        notes = [f"tolerance {self.tolerance:g}", f"{probes} probes"]
        for label, names in (
            ("frozen:", self.frozen),
            ("fallback to the original with", self.refused),
            ("not varied, since the original raises:", self.unprobed),
        ):
            if names:
                notes.append(f"{label} {', '.join(names)}")
        return (
            f"largest difference {worst.absolute:.2g} in {worst.output}, {worst.relative:.2g} of "
            f"its magnitude ({'; '.join(notes)})"
        )


@dataclass(frozen=True)
class VariantReport:
    """What was built for one way of calling the model.

    Attributes:
        inputs: the example inputs: names, dtypes and shapes.
        outcomes: one for each step, in order.
        fidelity: of the whole pipeline; None where no step was applied.
        speed: the original's time divided by the optimized model's on the example, from a short
            measurement; None where no step was applied or nothing was measured.
        seconds: build time, including the comparisons with the original.
        domain: the calls that the variant serves: sizes, and how they may vary.
    """

    inputs: str
    outcomes: tuple[Outcome, ...]
    fidelity: Fidelity | None = None
    speed: Ratio | None = None
    seconds: float = 0.0
    domain: str = ""

    def __str__(self) -> str:
        lines = [f"inputs    {self.inputs}"]
        lines += [f"domain    {self.domain}"] if self.domain and self.fidelity is not None else []
        lines += [f"step      {outcome}" for outcome in self.outcomes]
        if self.fidelity is not None:
            lines.append(f"fidelity  {self.fidelity}")
        if self.speed is not None:
            slower = "slower than the original on these inputs; " if self.speed.high < 1 else ""
            lines.append(f"speed     {self.speed} ({slower}short measurement; see cpuaccel bench)")
        return "\n".join(lines)


class CallKey(enum.StrEnum):
    """The stable keys of ``Report.calls``: which model served a call, and why the original did."""

    OPTIMIZED = "optimized"
    """Served by the optimized model. All others were served by the original."""
    TRAINING = "fallback:training"
    """The model is in training mode."""
    NOT_APPLIED = "fallback:not_applied"
    """No step of the pipeline was applied."""
    METHOD = "fallback:method"
    """A method other than ``forward`` computed without calling it, such as ``generate``."""
    INPUT_TYPE = "fallback:input_type"
    """An input is neither a tensor nor a plain Python value."""
    VARIANT_LIMIT = "fallback:variant_limit"
    """The model is called in more ways than variants are built for."""
    VALUES = "fallback:values"
    """An input has values for which the optimized model was not calibrated."""
    DEVICE = "fallback:device"
    """The weights are not on the CPU."""
    FORK = "fallback:fork"
    """The process was forked after the variants were built."""
    BUILDING = "fallback:building"
    """The call comes from inside a build, such as from a hook of the model."""
    SWITCHED_OFF = "fallback:switched_off"
    """The variant had too many consecutive faults."""
    ERROR = "fallback:error"
    """The optimized model raised an exception."""
    EMPTY = "fallback:empty"
    """An input has no elements: engines disagree about what to return."""
    AUDIT = "fallback:audit"
    """The call was compared with the original's, and differed."""
    NAN = "fallback:nan"
    """The optimized output has NaN or infinity, and the original's has not."""
    NAN_IN_ORIGINAL = "fallback:nan_in_original"
    """Both outputs have NaN or infinity."""
    OUTPUT_FORM = "fallback:output_form"
    """The optimized output has another type, dtype or shape than the original's."""
    NEW_OUTPUT_SHAPE = "fallback:new_output_shape"
    """The output's shape did not occur on the probes, but the original's is the same."""


@dataclass(frozen=True)
class Fallback:
    """Why the original model serves a call.

    Attributes:
        key: the key under which the call is counted.
        reason: the details, for the log and the report.
    """

    key: CallKey
    reason: str


class TuningRecord(Protocol):
    """What a report shows of a search (``cpuaccel.tuning``)."""

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """What was verified when the winner was built in this process."""

    def to_dict(self) -> dict[str, object]:
        """Return the record as JSON-serializable data."""


_counting = threading.Lock()
"""One lock for all reports: reports with their own locks could not be copied."""


def _renew_lock() -> None:
    global _counting
    _counting = threading.Lock()


# Another thread may hold the lock at a fork, and does not exist in the child to release it.
os.register_at_fork(after_in_child=_renew_lock)


class GenerationRecord(Protocol):
    """What a report shows of ``generate`` (``cpuaccel.generation``)."""

    @property
    def outcome(self) -> Outcome:
        """Outcome of the step that generates."""

    @property
    def encoder(self) -> "Report | None":
        """The report of the encoder; None for a model without one."""

    def to_dict(self) -> dict[str, object]:
        """Return the record as JSON-serializable data."""


class Report:
    """Everything that one ``optimize`` did, and the calls since then.

    Attributes:
        pipeline: the steps of the pipeline.
        dtype: the precision in force, or ``the model's own``.
        planned: outcomes known before any inputs: the steps that this host does not support.
        not_built: why the example inputs have no variant; empty if they have one or are missing.
        not_restored: why ``cpuaccel.load`` built again what the folder keeps; empty if it did not.
        variants: one for each way of calling that was built.
        audited: number of calls that were compared with the original while serving.
        largest_audited: the largest relative difference among them.
        generation: what was built for ``generate``; None until it is called.
        parts: of parts that methods other than ``forward`` called, by name.
        tuning: how ``backends="auto"`` chose the pipeline; otherwise None.
    """

    def __init__(self, pipeline: str, dtype: str, planned: tuple[Outcome, ...]) -> None:
        self.pipeline = pipeline
        self.dtype = dtype
        self.planned = planned
        self.not_built = ""
        self.not_restored = ""
        self.variants: list[VariantReport] = []
        self.tuning: TuningRecord | None = None
        self.generation: GenerationRecord | None = None
        self.parts: dict[str, Report] = {}
        self.audited = 0
        self.largest_audited: Difference | None = None
        self.reset_calls()

    @property
    def calls(self) -> Counter[str]:
        """Number of calls by ``CallKey``, as a copy."""
        with _counting:
            return Counter({str(key): count for key, count in self._calls.items()})

    @property
    def fallbacks(self) -> dict[str, str]:
        """The reason of the latest call under each key of ``calls`` other than ``optimized``."""
        with _counting:
            return {str(key): reason for key, reason in self._reasons.items()}

    @property
    def by_original(self) -> dict[str, int]:
        """Number of calls that the original served, by reason."""
        calls = self.calls
        del calls[CallKey.OPTIMIZED]
        return {self.fallbacks.get(key, key): count for key, count in calls.items()}

    def count(self, key: CallKey, reason: str = "") -> None:
        """Count a call, and keep its reason for ``fallbacks``. Thread-safe."""
        with _counting:
            self._calls[key] += 1
            if reason:
                self._reasons[key] = reason

    def record_audit(self, worst: Difference | None) -> None:
        """Count a call that was compared with the original. Thread-safe."""
        with _counting:
            self.audited += 1
            largest = self.largest_audited
            if worst is not None and (largest is None or worst.relative > largest.relative):
                self.largest_audited = worst

    def reset_calls(self) -> None:
        """Start counting again."""
        self._calls: Counter[CallKey] = Counter()
        self._reasons: dict[CallKey, str] = {}

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of the first variant, or those known before any was built."""
        return self.variants[0].outcomes if self.variants else self.planned

    @property
    def builds(self) -> tuple[VariantReport | Outcome, ...]:
        """Everything that was built: variants, the step that generates, its encoder, parts."""
        builds: list[VariantReport | Outcome] = [*self.variants]
        reports = [*self.parts.values()]
        if self.generation is not None:
            builds.append(self.generation.outcome)
            reports += [self.generation.encoder] if self.generation.encoder is not None else []
        return (*builds, *(build for report in reports for build in report.builds))

    @property
    def applied(self) -> tuple[str, ...]:
        """Names of the steps that were applied."""
        return tuple(o.step for o in self.outcomes if o.status is Status.APPLIED)

    def __str__(self) -> str:
        lines = [f"pipeline  {self.pipeline}, dtype {self.dtype}"]
        if self.tuning is not None:
            lines.append(str(self.tuning))
        if not self.variants:
            lines += [f"step      {outcome}" for outcome in self.planned]
            if self.not_built:
                lines.append(f"not built {self.not_built}")
            elif self.tuning is None:
                lines.append("waiting   for the first call, since there were no example_inputs")
        if self.not_restored:
            lines.append(f"built again, since {self.not_restored}")
        lines += [str(variant) for variant in self.variants]
        if self.generation is not None:
            lines.append(str(self.generation))
        for name, part in self.parts.items():
            lines += [f"{name}: {line}" for line in str(part).splitlines()]
        fallbacks = self.fallbacks
        counted = [
            f"{count} {key}{f' ({fallbacks[key]})' if key in fallbacks else ''}"
            for key, count in self.calls.items()
        ]
        if counted:
            lines.append(f"calls     {', '.join(counted)}")
        if self.audited:
            largest = self.largest_audited
            worst = "" if largest is None else f"; the largest difference: {largest}"
            lines.append(f"audit     {self.audited} calls compared with the original{worst}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON-serializable data."""
        return {
            "pipeline": self.pipeline,
            "dtype": self.dtype,
            "planned": [asdict(outcome) for outcome in self.planned],
            "not_built": self.not_built,
            "not_restored": self.not_restored,
            "variants": [asdict(variant) for variant in self.variants],
            "calls": dict(self.calls),
            "fallbacks": self.fallbacks,
            "audited": self.audited,
            "largest_audited": self.largest_audited and asdict(self.largest_audited),
            "generation": self.generation and self.generation.to_dict(),
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
            "tuning": self.tuning and self.tuning.to_dict(),
        }
