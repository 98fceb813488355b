"""Build small modules with the backend and compare them with the originals."""

from collections.abc import Callable

import torch

import cpuaccel
from cpuaccel.testing.outputs import tensors
from cpuaccel_plugins.onednn.build import build

FACTS = {
    "fusions",
    "packed_weights",
    "huge_pages",
    "attention",
    "share_of_flops_fused",
    "left_alone",
    "padding_computed",
}


Function = Callable[..., torch.Tensor]


class Linears(torch.nn.Module):
    """A function of an input and three linears of one size."""

    def __init__(self, function: Function, bias: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linears = torch.nn.ModuleList(torch.nn.Linear(8, 8, bias=bias) for _ in range(3))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.linears)


X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
"""An input of ``Linears``."""


def fuse(
    model: torch.nn.Module,
    *example: torch.Tensor,
    dtype: torch.dtype | None = None,
    prepack: bool = True,
) -> cpuaccel.Applied:
    """Build without measuring: everything that can be fused is."""
    if dtype is not None:
        model = model.to(dtype)
        example = tuple(t.to(dtype) if t.is_floating_point() else t for t in example)
    signature = cpuaccel.Signature.from_inputs(model.eval(), example)
    with torch.no_grad():
        return build(
            model, cpuaccel.Context(cpuaccel.host(), signature), measure=False, prepack=prepack
        )


def kinds(applied: cpuaccel.Applied) -> dict[str, int]:
    """The fusions by kind, without the other evidence."""
    return {n: int(c) for n, c in applied.evidence.items() if n not in FACTS}


def assert_same(
    applied: cpuaccel.Applied,
    model: torch.nn.Module,
    *inputs: torch.Tensor,
    tolerance: float = 1e-5,
) -> None:
    """Assert that the fused graph has the outputs of the module."""
    signature = cpuaccel.Signature.from_inputs(model, inputs)
    with torch.no_grad():
        expected = tensors(model(*inputs))
        outputs = tensors(applied.model(**signature.inputs))
    assert len(outputs) == len(expected)
    for output, original in zip(outputs, expected):
        assert output.shape == original.shape
        assert output.dtype == original.dtype
        scale = float(original.double().abs().max()) if original.numel() else 0.0
        difference = (output.double() - original.double()).abs()
        assert bool((difference <= tolerance * max(scale, 1e-3)).all()), float(difference.max())


def assert_all_packed_or_left_alone(
    model: torch.nn.Module, example: torch.Tensor, count: int
) -> None:
    """Assert that with measuring, the evidence accounts for all linears or convolutions."""
    fast = cpuaccel.optimize(model, ["onednn"], example_inputs=example, strict=True)
    evidence = fast.report.outcomes[0].evidence
    left = str(evidence.get("left_alone", "0")).partition(" ")[0]
    assert int(evidence["packed_weights"]) + int(left) == count
    with torch.no_grad():
        torch.testing.assert_close(fast(example), model(example))
