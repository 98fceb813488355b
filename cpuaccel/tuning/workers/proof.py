"""Whether a candidate answers as the original does, on every batch that was given."""

import math
from collections.abc import Callable, Sequence

import torch

from cpuaccel.checks.compare import compare, has_nonfinite
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import leaves, tensors
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.report import CallKey, Difference, Outcome, Status
from cpuaccel.tuning.workload import Workload

Call = Callable[[Inputs], object]


class Disproved(Exception):  # noqa: N818  # it is a finding, not an error
    """A candidate is not what it should be.

    Attributes:
        reason: in what.
        differences: from the original's outputs, as far as they were compared.
    """

    def __init__(self, reason: str, differences: Sequence[Difference] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.differences = tuple(differences)


def references(original: Call, workload: Workload) -> list[Probe]:
    """What the original answers to each batch."""
    probes = []
    with torch.no_grad():
        for number, (batch, shape) in enumerate(zip(workload.batches, workload.shapes), start=1):
            output = original(batch)
            probes.append(Probe(f"batch {number} ({shape})", batch, output, leaves(output)))
    return probes


def prove(
    optimized: OptimizedModel, probes: Sequence[Probe]
) -> tuple[list[object], list[Difference]]:
    """Call an optimized model with every batch and hold its outputs against the original's.

    Args:
        optimized: all of whose steps must have been applied, for every batch.
        probes: from ``references``.

    Returns:
        Its outputs, and how far they are from the original's.

    Raises:
        Disproved: a step was not applied, the original answered in its place, or an output is
            further off than the tolerance.
    """
    _insist(optimized.report.outcomes)
    outputs: list[object] = []
    differences: list[Difference] = []
    for probe in probes:
        before = optimized.report.calls.copy()
        output = optimized(**probe.inputs)
        found = compare(probe, output, optimized.original)
        differences += found
        for outcomes in (variant.outcomes for variant in optimized.report.variants):
            _insist(outcomes)
        for key in (optimized.report.calls - before).keys() - {CallKey.OPTIMIZED}:
            reason = optimized.report.fallbacks.get(key, key)
            raise Disproved(f"{probe.name} was served by the original ({reason})", differences)
        _insist_on(found, probe, output, _tolerance(optimized), differences)
        outputs.append(output)
    return outputs, differences


def _insist(outcomes: Sequence[Outcome]) -> None:
    missing = [str(outcome) for outcome in outcomes if outcome.status is not Status.APPLIED]
    if missing:
        raise Disproved(" ".join(missing).rstrip("."))


def _insist_on(
    found: Sequence[Difference],
    probe: Probe,
    output: object,
    tolerance: float,
    differences: Sequence[Difference],
) -> None:
    if has_nonfinite(tensors(output)) and not has_nonfinite(tensors(probe.output)):
        raise Disproved(f"it answers {probe.name} with NaN or infinity", differences)
    worst = max(found, key=lambda d: d.relative, default=None)
    if worst is not None and worst.relative > tolerance:
        raise Disproved(
            f"it changes the outputs for {probe.name}: {worst.output} differs by "
            f"{worst.absolute:.3g}, {worst.relative:.3g} of its magnitude "
            f"(tolerance {tolerance:g})",
            differences,
        )


def _tolerance(optimized: OptimizedModel) -> float:
    return min(
        (v.fidelity.tolerance for v in optimized.report.variants if v.fidelity is not None),
        default=math.inf,
    )
