"""Whether a candidate's outputs match the original's on every batch, and the user's metric."""

import math
from collections.abc import Callable, Sequence

import torch

from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import Structure
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import CallKey, Difference, Outcome, Status


class ProofFailed(Exception):  # noqa: N818  # a result of a trial, not an error
    """A candidate is not fully applied, its outputs differ, or it is slower than eager."""

    def __init__(self, reason: str, differences: Sequence[Difference] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.differences = tuple(differences)


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
        tolerance = min(
            (v.fidelity.tolerance for v in report.variants if v.fidelity is not None),
            default=math.inf,
        )
        compared = compare(probe, outputs[-1], optimized.original, tolerance)
        differences += compared
        for variant in report.variants:
            _check_applied(variant.outcomes)
        for key in (report.calls - before).keys() - {CallKey.OPTIMIZED}:
            reason = report.fallbacks.get(key, key)
            raise ProofFailed(f"{probe.name} was served by the original ({reason})", differences)
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
