"""Convolutions with batch norm, additions and activations; and where they must not be fused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import elu, gelu, relu

from tests.plugins.onednn.graphs import (
    assert_all_packed_or_left_alone,
    assert_same,
    fuse,
    kinds,
)
from tests.required import BF16, requires

Function = Callable[..., torch.Tensor]
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 8, 9, 9, generator=GENERATOR)
SOUNDS = torch.randn(2, 8, 21, generator=GENERATOR)


class Net(torch.nn.Module):
    """Two convolutions that keep the shape, a batch norm with statistics, and a function."""

    def __init__(self, function: Function, axes: int = 2, **settings: Any) -> None:
        super().__init__()
        conv = torch.nn.Conv2d if axes == 2 else torch.nn.Conv1d
        norm = torch.nn.BatchNorm2d if axes == 2 else torch.nn.BatchNorm1d
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convs = torch.nn.ModuleList(
                conv(8, 8, 3, **{"padding": 1, **settings}) for _ in range(2)
            )
            self.norm = norm(8)
            torch.nn.init.normal_(self.norm.running_mean)
            torch.nn.init.uniform_(self.norm.running_var, 0.5, 2)
            torch.nn.init.normal_(self.norm.weight)
            torch.nn.init.normal_(self.norm.bias)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.convs, self.norm)


def fusions(function: Function, axes: int = 2, **settings: Any) -> dict[str, int]:
    inputs = IMAGES if axes == 2 else SOUNDS
    model = Net(function, axes, **settings).eval()
    applied = fuse(model, inputs)
    for given in (inputs, inputs[:1], inputs.repeat(3, *[1] * (axes + 1))):
        assert_same(applied, model, given, tolerance=1e-4)
    return kinds(applied)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, a, b, n: a(x), {}),
        (lambda x, a, b, n: relu(a(x)), {"conv+relu": 1}),
        (lambda x, a, b, n: a(x).relu_(), {"conv+relu": 1}),
        (lambda x, a, b, n: gelu(a(x)), {"conv+gelu": 1}),
        (lambda x, a, b, n: a(x) + x, {"conv+add": 1}),
        (lambda x, a, b, n: relu(x + a(x)), {"conv+add": 1, "conv+relu": 1}),
        (lambda x, a, b, n: n(a(x)), {"conv+bn": 1}),
        (lambda x, a, b, n: relu(n(a(x)) + x), {"conv+add": 1, "conv+bn": 1, "conv+relu": 1}),
        (lambda x, a, b, n: b(n(a(x)).relu_()).relu_(), {"conv+bn": 1, "conv+relu": 2}),
    ],
    ids=["alone", "relu", "relu in place", "gelu", "add", "add, relu", "bn", "all", "two in place"],
)
def test_what_follows_a_convolution_is_fused(
    function: Function, expected: dict[str, int], axes: int
) -> None:
    assert fusions(function, axes) == expected


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [{"bias": False}, {"groups": 4}, {"dilation": 2, "padding": 2}, {"stride": 2}, {"padding": 0}],
    ids=str,
)
def test_settings_of_convolutions(settings: dict[str, Any], axes: int) -> None:
    assert fusions(lambda x, a, b, n: relu(n(a(x))), axes, **settings) == {
        "conv+bn": 1,
        "conv+relu": 1,
    }


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, a, b, n: elu(a(x)), {}),
        (lambda x, a, b, n: (y := a(x)).relu() * y, {}),
        (lambda x, a, b, n: (y := a(x)) + n(y), {"conv+add": 0}),
        (lambda x, a, b, n: a(x) + x[:, :1], {}),
        (lambda x, a, b, n: a(x) + 1, {}),
        (lambda x, a, b, n: torch.add(a(x), x, alpha=2), {}),
        (lambda x, a, b, n: a(x) - x, {}),
        (lambda x, a, b, n: n(relu(x)), {}),
    ],
    ids=["elu", "used twice", "norm of two", "broadcast", "number", "alpha", "minus", "no conv"],
)
def test_other_operators_are_not_fused(function: Function, expected: dict[str, int]) -> None:
    assert fusions(function) == {kind: count for kind, count in expected.items() if count}


def test_a_batch_norm_without_statistics_is_left_alone() -> None:
    def by_batch(x: torch.Tensor, a: torch.nn.Module, *rest: torch.nn.Module) -> torch.Tensor:
        return torch.nn.functional.batch_norm(a(x), None, None, training=True)

    model = Net(by_batch).eval()
    assert_same(fuse(model, IMAGES), model, IMAGES, tolerance=1e-4)


def test_weight_norm_is_folded() -> None:
    conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(8, 8, 3), dim=2)
    applied = fuse(conv.eval(), SOUNDS)
    assert applied.evidence["packed_weights"] == 1
    assert_same(applied, conv, SOUNDS)


@requires(BF16)
def test_bfloat16() -> None:
    model = Net(lambda x, a, b, n: relu(n(a(x)) + x)).eval()
    applied = fuse(model, IMAGES, dtype=torch.bfloat16)
    assert kinds(applied) == {"conv+add": 1, "conv+bn": 1, "conv+relu": 1}
    assert_same(applied, model, IMAGES.bfloat16(), tolerance=3e-2)


def test_measuring_accounts_for_every_convolution() -> None:
    model = Net(lambda x, a, b, n: b(relu(a(x)))).eval()
    assert_all_packed_or_left_alone(model, IMAGES, count=2)
