"""The original's outputs on the example batches: what candidates are compared with."""

import time

import torch

from cpuaccel.building.reference import Reference
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import leaves
from cpuaccel.tuning.workers.use import Use
from cpuaccel.tuning.workload import Workload


class Original:
    """The original model on the example batches.

    Attributes:
        probes: each batch with its output.
        seconds: how long the outputs took.
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
