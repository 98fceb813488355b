"""The original's outputs on the example batches: what candidates are compared with."""

import statistics
import time

import torch

from cpuaccel.building.reference import Reference
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import leaves
from cpuaccel.timing import time_call
from cpuaccel.tuning.workers.timing import on_each
from cpuaccel.tuning.workers.use import Use
from cpuaccel.tuning.workload import Workload

WARM_PASSES = 3


class Original:
    """The original model on the example batches.

    Attributes:
        probes: each batch with its output.
        seconds: how long the outputs took, in the first pass over the batches.
    """

    def __init__(self, model: torch.nn.Module, workload: Workload, use: Use) -> None:
        self.model = model
        self.workload = workload
        self.use = use
        self.reference = Reference(model, inplace=False)
        self.probes: list[Probe] = []
        run = use.original(self.reference)
        begun = time.monotonic()
        with torch.no_grad():
            for number, (batch, shape) in enumerate(zip(workload.batches, workload.shapes), 1):
                output = run(batch)
                name = f"batch {number} ({shape})"
                self.probes.append(Probe(name, batch, output, leaves(output)))
        self.seconds = time.monotonic() - begun

    def warm_pass(self, limit: float) -> float:
        """Return the median seconds of further passes, without what the first one prepares.

        Args:
            limit: seconds after which no pass begins but the first.
        """
        calls = on_each(self.use.original(self.reference), self.workload.batches)
        passes: list[float] = []
        with torch.no_grad():
            while len(passes) < WARM_PASSES and (not passes or sum(passes) < limit):
                passes.append(sum(time_call(call) for call in calls))
        return statistics.median(passes)
