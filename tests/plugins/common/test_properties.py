"""Properties of a model are not read while it is traced."""

import torch

import cpuaccel


class Watched(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(x)
        return output


def test_a_trace_reads_no_property() -> None:
    reads = []

    class Reading(Watched):
        @property
        def loss_function(self) -> None:
            reads.append("loss_function")

    fast = cpuaccel.optimize(
        Reading().eval(), ["jit"], example_inputs=torch.ones(2, 4), strict=True
    )
    assert fast.report.applied == ("jit",)
    assert reads == []
