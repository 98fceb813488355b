"""The user's own measure of the outputs, held against its value on the original's."""

from collections.abc import Callable, Sequence

import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import Structure

Metric = Callable[[list[object]], float]
"""Takes the outputs for all example batches, in their order; more is better."""


class Judge:
    """Calls the user's metric.

    Attributes:
        original: the metric of the original's outputs.
    """

    def __init__(self, metric: Metric, max_drop: float, references: Sequence[Probe]) -> None:
        """Judge the original.

        Args:
            metric: the user's.
            max_drop: how much less than on the original it may be.
            references: the original's answers.
        """
        self._metric = metric
        self._max_drop = max_drop
        self._structures = [Structure.from_output(probe.output) for probe in references]
        self.original = float(metric([probe.output for probe in references]))

    def restored(self, batches: Sequence[Sequence[torch.Tensor]]) -> list[object]:
        """Outputs as the original gives them, of their tensors alone."""
        return [s.restore(iter(tensors)) for s, tensors in zip(self._structures, batches)]

    def judge(self, outputs: list[object]) -> tuple[float, str]:
        """The metric of another's outputs, and what is wrong with it; empty where nothing is."""
        found = float(self._metric(outputs))
        if found >= self.original - self._max_drop:
            return found, ""
        return found, (
            f"the metric is {found:.6g}, which is {self.original - found:.3g} below the "
            f"original's {self.original:.6g} (max_drop {self._max_drop:g})"
        )
