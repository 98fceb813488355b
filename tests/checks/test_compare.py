import torch

import cpuaccel


class ReturnsSparse(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.linear(x)
        return hidden.relu().to_sparse()


def test_sparse_outputs_are_compared_by_their_values() -> None:
    model, x = ReturnsSparse().eval(), torch.randn(3, 8)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.randn(2, 8), strict=True)
    output = fast(x)
    with torch.no_grad():
        expected = model(x)
    assert output.layout is torch.sparse_coo
    torch.testing.assert_close(output.to_dense(), expected.to_dense())
    assert fast.report.calls == {"optimized": 1}
