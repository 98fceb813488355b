"""Linears with activations, with additions and concatenated; and where they must not be fused."""

import pytest
import torch
from torch.nn.functional import gelu, relu, sigmoid, silu, tanh

from tests.plugins.onednn.graphs import (
    Function,
    Linears,
    X,
    assert_all_packed_or_left_alone,
    assert_same,
    fuse,
    kinds,
)
from tests.required import BF16, requires


def fusions(function: Function, bias: bool = True) -> dict[str, int]:
    model = Linears(function, bias).eval()
    applied = fuse(model, X)
    for inputs in (X, X[:1], X[:, :1], X.repeat(2, 3, 1)):
        assert_same(applied, model, inputs)
    return kinds(applied)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (gelu, "linear+gelu"),
        (lambda x: gelu(x, approximate="tanh"), "linear+gelu"),
        (relu, "linear+relu"),
        (silu, "linear+silu"),
        (tanh, "linear+tanh"),
        (sigmoid, "linear+sigmoid"),
        (lambda x: x.relu_(), "linear+relu"),
    ],
    ids=["gelu", "gelu tanh", "relu", "silu", "tanh", "sigmoid", "relu in place"],
)
def test_an_activation_is_fused(activation: Function, name: str, bias: bool) -> None:
    assert fusions(lambda x, a, b, c: activation(a(x)), bias) == {name: 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b, c: x + a(x),
        lambda x, a, b, c: a(x) + x,
        lambda x, a, b, c: torch.add(a(x), x, alpha=1),
        lambda x, a, b, c: x.transpose(0, 1).contiguous().transpose(0, 1) + a(x),
    ],
    ids=["residual first", "linear first", "alpha of one", "strided residual"],
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_an_addition_is_fused(function: Function, bias: bool) -> None:
    assert fusions(function, bias) == {"linear+add": 1}


def test_the_sum_of_two_linears_is_fused_into_one_of_them() -> None:
    assert fusions(lambda x, a, b, c: a(x) + b(x)) == {"linear+add": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b, c: torch.nn.functional.elu(a(x)),
        lambda x, a, b, c: torch.nn.functional.mish(a(x)),
        lambda x, a, b, c: torch.softmax(a(x), -1),
        lambda x, a, b, c: (lambda y: y.relu() * y)(a(x)),
        lambda x, a, b, c: torch.stack([(y := a(x)).relu(), y]),
        lambda x, a, b, c: a(x).transpose(1, 2).relu(),
        lambda x, a, b, c: a(x) + a(x),
        lambda x, a, b, c: torch.add(x, a(x), alpha=2),
        lambda x, a, b, c: a(x) + x[:, :1],
        lambda x, a, b, c: a(x) + x[0, 0],
        lambda x, a, b, c: a(x[:, :1]) + x,
        lambda x, a, b, c: a(x) + 1.0,
        lambda x, a, b, c: a(x) + x.double(),
        lambda x, a, b, c: a(x) - x,
        lambda x, a, b, c: a(x) * x,
    ],
    ids=[
        "elu",
        "mish",
        "softmax",
        "used twice",
        "used after",
        "transposed before the activation",
        "added to itself",
        "alpha",
        "broadcast residual",
        "broadcast vector",
        "broadcast linear",
        "a number",
        "another dtype",
        "subtraction",
        "product",
    ],
)
def test_other_operators_are_not_fused(function: Function) -> None:
    assert fusions(function) == {}


def test_the_addition_of_a_linear_used_twice_is_not_fused() -> None:
    assert fusions(lambda x, a, b, c: torch.stack([x + (y := a(x)), y])) == {}


def test_linears_of_one_input_are_concatenated() -> None:
    def attention_like(x: torch.Tensor, *linears: torch.nn.Linear) -> torch.Tensor:
        query, key, value = (
            linear(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for linear in linears
        )
        return query @ key.transpose(2, 3) @ value

    assert fusions(attention_like) == {"concat linear": 1}
    assert fusions(attention_like, bias=False) == {"concat linear": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b, c: torch.cat([a(x), b(x)]),
        lambda x, a, b, c: torch.stack([a(x).transpose(1, 2), b(x * 2).transpose(1, 2)]),
        lambda x, a, b, c: torch.stack([a(x).mT, torch.nn.functional.linear(x, b.weight).mT]),
    ],
    ids=["computed with directly", "other inputs", "one without bias"],
)
def test_other_linears_are_not_concatenated(function: Function) -> None:
    assert fusions(function) == {}


def test_a_shared_weight_is_packed_once() -> None:
    model = Linears(lambda x, a, b, c: a(a(x))).eval()
    applied = fuse(model, X)
    assert applied.evidence["packed_weights"] == 1
    assert_same(applied, model, X)


def test_linears_of_one_input_with_a_shared_weight_are_concatenated() -> None:
    def shared(x: torch.Tensor, a: torch.nn.Linear, b: torch.nn.Linear, c: object) -> torch.Tensor:
        one = torch.nn.functional.linear(x, a.weight, a.bias).reshape(*x.shape[:-1], 2, 4)
        other = torch.nn.functional.linear(x, a.weight, b.bias).reshape(*x.shape[:-1], 2, 4)
        return one @ other.transpose(-1, -2)

    assert fusions(shared) == {"concat linear": 1}


def test_a_weight_with_other_users_stays_as_it_is() -> None:
    def tied(x: torch.Tensor, a: torch.nn.Linear, *rest: torch.nn.Linear) -> torch.Tensor:
        return a(x) @ a.weight

    model = Linears(tied).eval()
    assert_same(fuse(model, X), model, X)


def test_a_linear_whose_weight_is_an_input_is_left_alone() -> None:
    class WeightAsInput(torch.nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, weight).relu()

    model = WeightAsInput()
    applied = fuse(model, X, torch.ones(8, 8))
    assert kinds(applied) == {}
    assert applied.evidence["left_alone"] == "1 linears without constant weights of a usable dtype"
    assert_same(applied, model, X, torch.ones(8, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_are_left_alone(dtype: torch.dtype) -> None:
    model = Linears(lambda x, a, b, c: x + a(x).relu()).eval()
    applied = fuse(model, X, dtype=dtype)
    assert kinds(applied) == {}
    assert_same(applied, model, X.to(dtype), tolerance=1e-2)


@requires(BF16)
def test_bfloat16() -> None:
    model = Linears(lambda x, a, b, c: x + b(gelu(a(x)))).eval()
    applied = fuse(model, X, dtype=torch.bfloat16)
    assert kinds(applied) == {"linear+gelu": 1, "linear+add": 1}
    assert_same(applied, model, X.bfloat16(), tolerance=2e-2)


def test_measuring_accounts_for_every_linear() -> None:
    model = Linears(lambda x, a, b, c: c(b(a(x)))).eval()
    assert_all_packed_or_left_alone(model, X, count=3)


def test_without_prepacking_the_models_own_weights_are_used() -> None:
    model = Linears(lambda x, a, b, c: c(x + b(gelu(a(x))))).eval()
    applied = fuse(model, X, prepack=False)
    assert kinds(applied) == {"linear+add": 1, "linear+gelu": 1}
    assert applied.evidence["packed_weights"] == 0
    assert_same(applied, model, X)
    with torch.no_grad():
        model.linears[0].weight.mul_(2)
    assert_same(applied, model, X)
