"""Python numbers that vary share a variant, where the original takes tensors for them."""

import pytest
import torch

import cpuaccel
from tests.required import OPENVINO, requires

VALUES = (0.5, 2.0, -3.0, 0.125, 7.0, 1e-3, 100.0, 0.75, 4.5, 6.25)


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, scale: float = 1.0, power: int = 1) -> torch.Tensor:
        return self.linear(x) * scale + x**power


class Switched(torch.nn.Module):
    """Reads the number: each value needs a graph of its own."""

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return x * 2 if scale > 1 else x + 1


class Clamped(torch.nn.Module):
    """Needs a Python number."""

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return x + round(scale, 1)


def serves(fast: torch.nn.Module, model: torch.nn.Module, *inputs: object) -> bool:
    with torch.no_grad():
        return torch.allclose(fast(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["jit", pytest.param("openvino", marks=requires(*OPENVINO))])
def test_a_number_that_varies_takes_two_variants(backend: str) -> None:
    model, x = Scaled().eval(), torch.randn(3, 4)
    fast = cpuaccel.optimize(model, [backend])
    for value in VALUES:
        assert serves(fast, model, x, value)
    assert serves(fast, model, torch.randn(7, 4), 0.3)
    assert fast.report.calls == {"optimized": len(VALUES) + 1}
    assert [str(variant.inputs) for variant in fast.report.variants] == [
        "x: float32[3, 4], scale=0.5",
        "x: float32[3, 4], scale: float64[]",
    ]


def test_each_number_becomes_a_tensor_once_it_varies() -> None:
    model, x = Scaled().eval(), torch.randn(3, 4)
    fast = cpuaccel.optimize(model, ["jit"])
    for scale, power in [(1.0, 2), (2.0, 2), (3.0, 2), (3.0, 3), (4.0, 2), (0.5, 1)]:
        assert serves(fast, model, x, scale, power)
    assert fast.report.calls == {"optimized": 6}


@pytest.mark.parametrize("model", [Switched(), Clamped()], ids=lambda model: type(model).__name__)
def test_a_number_that_the_code_reads_has_a_variant_for_each_value(model: torch.nn.Module) -> None:
    x = torch.randn(3, 4)
    fast = cpuaccel.optimize(model, ["jit"])
    for value in VALUES[:4] * 2:
        assert serves(fast, model, x, value)
    assert fast.report.calls == {"optimized": 8}
    assert len(fast.report.variants) == 4


def test_with_freeze_values_numbers_stay_exact() -> None:
    model, x = Switched(), torch.randn(3, 4)
    fast = cpuaccel.optimize(model, ["jit"], freeze_values=True)
    for value in VALUES[:3]:
        assert serves(fast, model, x, value)
    assert len(fast.report.variants) == 3


def test_a_module_gets_the_original_numbers_where_the_output_has_them() -> None:
    class Returned(torch.nn.Module):
        def forward(self, x: torch.Tensor, scale: float) -> tuple[torch.Tensor, float]:
            return x * scale, scale

    model, x = Returned(), torch.randn(3, 4)
    fast = cpuaccel.optimize(model, ["jit"])
    for value in VALUES[:3]:
        assert fast(x, value)[1] == value
        assert type(fast(x, value)[1]) is float
