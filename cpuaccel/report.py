"""What one ``optimize`` did: outcomes, fidelity, timing, and the calls since."""

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from cpuaccel.calls import Calls
from cpuaccel.checks.difference import Difference
from cpuaccel.timing import Ratio

if TYPE_CHECKING:
    from cpuaccel.tuning.decisions.result import Tuning


class Status(enum.StrEnum):
    """What a step came to."""

    APPLIED = "applied"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What one step came to.

    Attributes:
        step: the backend's name.
        status: applied, skipped or failed.
        reason: for what was not applied, what is true.
        remedy: what the user can do about it.
        evidence: what shows that it took.
        seconds: time that applying it took.
        bytes: growth of the process's resident memory meanwhile.
        restored: global settings that it changed and that were put back.
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
class Fidelity:
    """How close the optimized model's answers are to the original's.

    Attributes:
        tolerance: largest relative difference that is accepted.
        differences: one for each probe and output tensor.
        frozen: axes (``batch``, ``length``) that the optimized model was found to have frozen;
            calls that differ in these get a variant of their own.
        unprobed: variations that the original itself refused.
        refused: paddings that the optimized model raises on; the original answers such calls.
    """

    tolerance: float
    differences: tuple[Difference, ...]
    frozen: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def worst(self) -> Difference | None:
        """The output that is furthest off, relative to its magnitude."""
        return max(self.differences, key=lambda d: d.relative, default=None)

    def __str__(self) -> str:
        worst = self.worst
        if worst is None:
            return "no tensor to compare"
        frozen = f"; frozen: {', '.join(self.frozen)}" if self.frozen else ""
        refused = f"; left to the original: {', '.join(self.refused)}" if self.refused else ""
        unprobed = (
            f"; the original takes no other {', '.join(self.unprobed)}" if self.unprobed else ""
        )
        return (
            f"largest difference {worst.absolute:.2g} in {worst.output}, {worst.relative:.2g} of "
            f"its magnitude (tolerance {self.tolerance:g}; "
            f"{len({d.probe for d in self.differences})} probes{frozen}{refused}{unprobed})"
        )


@dataclass(frozen=True)
class VariantReport:
    """What was built for one way of calling the model.

    Attributes:
        inputs: the example inputs: names, dtypes and shapes.
        outcomes: one for each step, in order.
        fidelity: of the whole pipeline; None where no step was applied.
        speed: original time over optimized time on the example, a first look; None where no step
            was applied, or where it was measured otherwise.
        seconds: time that building took in all, checks of the answers included.
    """

    inputs: str
    outcomes: tuple[Outcome, ...]
    fidelity: Fidelity | None = None
    speed: Ratio | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"inputs    {self.inputs}"]
        lines += [f"step      {outcome}" for outcome in self.outcomes]
        if self.fidelity is not None:
            lines.append(f"fidelity  {self.fidelity}")
        if self.speed is not None:
            slower = "slower than the original on these inputs; " if self.speed.high < 1 else ""
            lines.append(f"speed     {self.speed} ({slower}a first look; cpuaccel bench measures)")
        return "\n".join(lines)


class Report:
    """Everything that one ``optimize`` did, growing as the model is called.

    Attributes:
        pipeline: the steps asked for.
        dtype: the precision in force, or ``the model's own``.
        planned: outcomes known before any inputs were seen: the steps this host can't have.
        variants: one for each way of calling that was built.
        tuning: how the pipeline was chosen, where it was by ``backends="auto"``.
    """

    def __init__(self, pipeline: str, dtype: str, planned: tuple[Outcome, ...]) -> None:
        self.pipeline = pipeline
        self.dtype = dtype
        self.planned = planned
        self.variants: list[VariantReport] = []
        self.tuning: Tuning | None = None
        self._calls = Calls()

    @property
    def calls(self) -> Counter[str]:
        """How many calls the optimized model answered (``optimized``) and how many the original.

        Those by reason: ``original (...)``. A copy, as of now.
        """
        return self._calls.counts()

    def count(self, what: str) -> None:
        """Count a call."""
        self._calls.add(what)

    def forget_calls(self) -> None:
        """Begin to count anew: those so far were none of the user's."""
        self._calls = Calls()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The steps' outcomes for the first variant; before it, those known beforehand."""
        return self.variants[0].outcomes if self.variants else self.planned

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
            lines.append("waiting   for the first call: no example_inputs were given")
        lines += [str(variant) for variant in self.variants]
        if calls := self.calls:
            lines.append("calls     " + ", ".join(f"{n} {why}" for why, n in calls.items()))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return {
            "pipeline": self.pipeline,
            "dtype": self.dtype,
            "planned": [asdict(outcome) for outcome in self.planned],
            "variants": [asdict(variant) for variant in self.variants],
            "calls": dict(self.calls),
            "tuning": self.tuning and self.tuning.to_dict(),
        }
