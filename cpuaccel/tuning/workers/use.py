"""How a workload uses a model: it calls it, or its ``generate``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from cpuaccel.building.reference import Reference
from cpuaccel.checks.probes import Probe
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.report import Difference, Fallback, Outcome, Status
from cpuaccel.tuning.workers.proof import ProofFailed, prove
from cpuaccel.variants import Route

if TYPE_CHECKING:
    from cpuaccel.generation.build import Generation

Run = Callable[[Inputs], object]


@dataclass(frozen=True)
class Proven:
    """An optimized model on the example batches.

    Attributes:
        outputs: one for each batch.
        differences: from the original.
        outcomes: of its steps.
        build_seconds: duration of the build.
    """

    outputs: list[object]
    differences: list[Difference]
    outcomes: tuple[Outcome, ...]
    build_seconds: float


@dataclass(frozen=True)
class Use:
    """How a workload uses a model.

    Attributes:
        generate: the arguments of ``generate`` besides the inputs; None where it is called.
    """

    generate: Mapping[str, object] | None = None

    def original(self, reference: Reference) -> Run:
        """Return what runs the original on a batch."""
        return reference.run if self.generate is None else self._generate(reference.eager)

    def optimized(self, model: OptimizedModel) -> Run:
        """Return what runs the optimized model on a batch."""
        return (lambda batch: model(**batch)) if self.generate is None else self._generate(model)

    def prepare(self, model: OptimizedModel, batch: Inputs) -> Route | Fallback | None:
        """Build the optimized model for a batch; ``generate`` builds at its first call."""
        return model.prepare(batch) if self.generate is None else None

    def prove(self, model: OptimizedModel, probes: Sequence[Probe]) -> Proven:
        """Run an optimized model on every batch, and compare it with the original.

        Generated tokens may differ where two are about as likely: the logits were compared by the
        build.

        Raises:
            ProofFailed: it is not fully applied, or its outputs differ.
        """
        report = model.report
        if self.generate is None:
            outputs, differences = prove(model, probes)
            seconds = sum(variant.seconds for variant in report.variants)
            return Proven(outputs, differences, report.outcomes, seconds)
        run = self.optimized(model)
        outputs = [run(probe.inputs) for probe in probes]
        generation = cast("Generation | None", report.generation)
        if generation is None:
            raise ProofFailed("no step generates")
        outcome, closeness = generation.outcome, generation.closeness
        if outcome.status is not Status.APPLIED or closeness is None:
            raise ProofFailed(str(outcome).rstrip("."))
        for reason in report.by_original:
            raise ProofFailed(f"the original served it ({reason})")
        return Proven(outputs, list(closeness.differences), (outcome,), outcome.seconds)

    def _generate(self, model: torch.nn.Module) -> Run:
        generate = cast(Callable[..., object], model.generate)
        arguments = self.generate or {}
        return lambda batch: generate(**batch, **arguments)
