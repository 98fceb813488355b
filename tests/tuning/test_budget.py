"""How a search divides its time."""

import time

import torch

from cpuaccel.tuning.budget import Budget
from cpuaccel.tuning.workers.original import WARM_PASSES, Original
from cpuaccel.tuning.workers.use import Use
from cpuaccel.tuning.workload import Workload


class SlowAtFirst(torch.nn.Module):
    """Sleeps in its first call, as a model does that packs weights or reads them from a file."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 1:
            time.sleep(1)
        return inputs * self.weight


def original() -> tuple[Original, SlowAtFirst]:
    model = SlowAtFirst().eval()
    workload = Workload.from_batches(model, {"inputs": torch.ones(2, 3)})
    made = Original(model, workload, Use())
    assert isinstance(made.reference.eager, SlowAtFirst)
    return made, made.reference.eager


def test_a_cold_first_call_reserves_no_time() -> None:
    cold, _ = original()
    warm = cold.warm_pass(10)
    assert warm < cold.seconds
    budget = Budget(100, throughput=False, begun=0.0, eager_pass=warm)
    assert budget.measure_limit < 8 * cold.seconds


def test_long_passes_are_not_repeated() -> None:
    slow, model = original()
    calls = model.calls
    slow.warm_pass(0)
    assert model.calls == calls + 1
    slow.warm_pass(1000)
    assert model.calls == calls + 1 + WARM_PASSES


def test_what_was_short() -> None:
    budget = Budget(600, throughput=False, begun=0.0, eager_pass=4.5)
    assert budget.shortage(0.2) == "the budget of 600 s ended before it was tried"
    assert budget.shortage(30) == "not enough time left (needs about 36 s)"
    quick = Budget(600, throughput=False, begun=0.0, eager_pass=0.1)
    assert "needs about 10 s" in quick.shortage(8)
