"""A model built for one way of calling it, and whether it is still used."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from cpuaccel.building.domain import Domain
from cpuaccel.building.stage import Call, Output, Stage
from cpuaccel.checks.output_form import OutputForm
from cpuaccel.model.signature import (
    Inputs,
    Signature,
    cloned,
    numbers_as_tensors,
    tensors_of,
)
from cpuaccel.report import Outcome, VariantReport

MAX_FAULTS = 5
"""Consecutive faults after which a variant is switched off: each one costs two calls."""


@dataclass(eq=False)
class Variant:
    """A model built for one way of calling it.

    Attributes:
        call: calls the model; the original where no step was applied.
        stage: the result of the last step.
        signature: the call that the variant was built for.
        report: what was done.
        applied: whether any step was applied.
        domain: the calls that it may serve.
        tolerance: largest relative difference of an output that an audit accepts.
        copied: inputs of which it gets a copy in each call, because it writes to them.
        writes: whether the original writes to its inputs, too.
        finite: whether NaN and infinity are faults (the original's output has none).
        output_form: types and shapes that its outputs must have; None if unknown.
        audited: size classes of which a call was compared with the original.
        rejected: keys of calls in which its outputs differed from the original's.
        numbers: Python numbers of a call that it takes as tensors of no dimension.
        off: why the variant is no longer used; empty while it is.
    """

    call: Call
    stage: Stage
    signature: Signature
    report: VariantReport
    applied: bool
    domain: Domain
    tolerance: float
    copied: frozenset[str]
    writes: bool
    finite: bool
    output_form: OutputForm | None
    numbers: tuple[str, ...] = ()
    off: str = ""
    audited: set[tuple[int, ...]] = field(default_factory=set, repr=False)
    rejected: set[tuple[object, ...]] = field(default_factory=set, repr=False)
    _faults: int = field(default=0, repr=False)

    @property
    def model(self) -> Callable[..., object] | torch.nn.Module:
        """The result of the last step."""
        return self.stage.model

    def run(self, inputs: Inputs) -> object:
        """Call the model and return its output unchecked."""
        return self.serve(inputs).value

    def serve(self, inputs: Inputs) -> Output:
        """Call the model; the inputs that it writes to are copied before."""
        if self.numbers:
            inputs = numbers_as_tensors(inputs, self.numbers)
        if self.copied:
            written = {n: v for n, v in tensors_of(inputs).items() if n in self.copied}
            inputs = {**inputs, **cloned(written)}
        return self.call(inputs)

    def record_success(self) -> None:
        """Reset the number of consecutive faults."""
        self._faults = 0

    def record_fault(self, reason: str) -> bool:
        """Count a call that the original served although this variant should have.

        Returns:
            Whether this fault switched the variant off. Concurrent faults may count as one; the
            variant is then switched off a few calls later.
        """
        self._faults += 1
        if self._faults < MAX_FAULTS or self.off:
            return False
        self.off = f"switched off after {MAX_FAULTS} consecutive faults, the last one: {reason}"
        return True


@dataclass(frozen=True)
class SavedBuild:
    """The result of an earlier build, verified like the result of a step before it is used.

    Attributes:
        stage: the result of its last step.
        outcomes: one for each step.
    """

    stage: Stage
    outcomes: tuple[Outcome, ...]
