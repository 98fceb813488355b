"""A model built for one way of calling it, and whether it is still used."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from cpuaccel.building.stage import Call, Stage
from cpuaccel.checks.output_form import OutputForm
from cpuaccel.model.signature import Inputs, Signature
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
        frozen: whether the variant serves only calls with the example's exact shapes.
        finite: whether NaN and infinity are faults (the original's output has none).
        output_form: types and shapes that its outputs must have; None if unknown.
        off: why the variant is no longer used; empty while it is.
    """

    call: Call
    stage: Stage
    signature: Signature
    report: VariantReport
    applied: bool
    frozen: bool
    finite: bool
    output_form: OutputForm | None
    off: str = ""
    _faults: int = field(default=0, repr=False)

    @property
    def model(self) -> Callable[..., object] | torch.nn.Module:
        """The result of the last step."""
        return self.stage.model

    def run(self, inputs: Inputs) -> object:
        """Call the model and return its output unchecked."""
        return self.call(inputs).value

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
