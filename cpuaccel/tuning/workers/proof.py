"""The original's outputs, and whether a candidate's outputs match them on every batch."""

import math
import time
from collections.abc import Callable, Sequence

import torch

from cpuaccel.building.reference import Reference
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import Structure, leaves
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import CallKey, Difference, Outcome, Status
from cpuaccel.tuning.workload import Workload


class ProofFailed(Exception):  # noqa: N818  # a result of a trial, not an error
    """A candidate is not fully applied, its outputs differ, or it is slower than eager."""

    def __init__(self, reason: str, differences: Sequence[Difference] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.differences = tuple(differences)


class Original:
    """The original model on the example batches: what candidates are compared with.

    Attributes:
        probes: each batch with its output.
        seconds: how long the outputs took.
    """

    def __init__(self, model: torch.nn.Module, workload: Workload) -> None:
        self.model = model
        self.workload = workload
        self.reference = Reference(model, inplace=False)
        self.probes: list[Probe] = []
        begun = time.monotonic()
        with torch.no_grad():
            for number, (batch, shape) in enumerate(zip(workload.batches, workload.shapes), 1):
                output = self.reference.run(batch)
                name = f"batch {number} ({shape})"
                self.probes.append(Probe(name, batch, output, leaves(output)))
        self.seconds = time.monotonic() - begun


class Judge:
    """The user's metric, compared with its value for the original's outputs."""

    def __init__(
        self, metric: Callable[[list[object]], float], max_drop: float, probes: Sequence[Probe]
    ) -> None:
        self._metric = metric
        self._max_drop = max_drop
        self._structures = [Structure.from_output(probe.output) for probe in probes]
        self.original = self.measure([probe.output for probe in probes])

    def measure(self, outputs: list[object]) -> float:
        """Call the metric."""
        return float(self._metric(outputs))

    def measure_tensors(self, batches: Sequence[Sequence[torch.Tensor]]) -> float:
        """Call the metric with outputs that are restored from their tensors."""
        return self.measure([s.restore(iter(t)) for s, t in zip(self._structures, batches)])

    def verdict(self, metric: float) -> Verdict:
        """Whether a value of the metric is accepted."""
        if metric >= self.original - self._max_drop:
            return Verdict.yes()
        return Verdict.no(
            f"the metric is {metric:.6g}, {self.original - metric:.3g} below the original's "
            f"{self.original:.6g} (max_drop {self._max_drop:g})"
        )


def prove(
    optimized: OptimizedModel, probes: Sequence[Probe]
) -> tuple[list[object], list[Difference]]:
    """Call an optimized model with every batch and compare its outputs with the original's."""
    report = optimized.report
    _check_applied(report.outcomes)
    outputs: list[object] = []
    differences: list[Difference] = []
    for probe in probes:
        before = report.calls
        outputs.append(optimized(**probe.inputs))
        compared = compare(probe, outputs[-1], optimized.original)
        differences += compared
        for variant in report.variants:
            _check_applied(variant.outcomes)
        for key in (report.calls - before).keys() - {CallKey.OPTIMIZED}:
            reason = report.fallbacks.get(key, key)
            raise ProofFailed(f"{probe.name} was served by the original ({reason})", differences)
        tolerance = min(
            (v.fidelity.tolerance for v in report.variants if v.fidelity is not None),
            default=math.inf,
        )
        worst = max(compared, key=lambda d: d.relative, default=None)
        # Infinite: NaN, infinity or another shape.
        if worst is not None and (worst.relative > tolerance or math.isinf(worst.relative)):
            raise ProofFailed(
                f"it changes the outputs for {probe.name}: {worst} (tolerance {tolerance:g})",
                differences,
            )
    return outputs, differences


def _check_applied(outcomes: Sequence[Outcome]) -> None:
    missing = [str(outcome) for outcome in outcomes if outcome.status is not Status.APPLIED]
    if missing:
        raise ProofFailed(" ".join(missing).rstrip("."))
