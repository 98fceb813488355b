"""Attention by our own kernel: what the stock operator computes, for all sizes and strides."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

from cpuaccel_plugins.onednn.attention.attend import (
    Method,
    MethodByLength,
    attend,
    split_operands,
)
from cpuaccel_plugins.onednn.attention.kernel import LANES, attend_to_all
from cpuaccel_plugins.onednn.attention.packed import attend_packed, read_layout

TOLERANCE: dict[Method, float] = {"kernel": 1e-5, "bfloat16 kernel": 3e-2}
METHODS = pytest.mark.parametrize("method", TOLERANCE)
SCALE = 0.3


def assert_close(found: torch.Tensor, expected: torch.Tensor, method: Method) -> None:
    """Compare the heads side by side, shape (batch, tokens, width), with those of the operator."""
    reference = expected.transpose(1, 2).flatten(2)
    limit = TOLERANCE[method] * float(reference.abs().max())
    torch.testing.assert_close(found, reference, atol=limit, rtol=0)


def compute(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, method: Method
) -> torch.Tensor:
    out = torch.full((len(query), query.shape[2], query.shape[1] * query.shape[3]), torch.nan)
    narrow = method == "bfloat16 kernel"
    assert attend_to_all(query, key, value, SCALE, out, narrow=narrow)
    return out


@METHODS
@pytest.mark.parametrize("size", [16, 48, 64, 80, 128])
@pytest.mark.parametrize("tokens", [1, 5, 64, 65, 200, 513, 1100])
def test_all_sizes(tokens: int, size: int, method: Method) -> None:
    """Parts of panels, and several parts of the keys after each other."""
    query, key, value = split_operands(torch.randn(2, tokens, 3, 2, size))
    assert_close(compute(query, key, value, method), stock(query, key, value, scale=SCALE), method)


@METHODS
@pytest.mark.parametrize("queries", [1, 7, 30])
def test_other_numbers_of_queries_than_keys(queries: int, method: Method) -> None:
    query = torch.randn(2, 3, queries, 32)
    key, value = torch.randn(2, 2, 3, 75, 32).unbind()
    assert_close(compute(query, key, value, method), stock(query, key, value, scale=SCALE), method)


@METHODS
@pytest.mark.parametrize("factor", [0, 1e-3, 4])
def test_scores_of_any_size(factor: float, method: Method) -> None:
    """Alike; or the largest come last."""
    query, key, value = split_operands(torch.randn(1, 600, 3, 2, 16))
    key = torch.cat([key[:, :, :590] / 4, factor * key[:, :, 590:]], 2)
    assert_close(compute(query, key, value, method), stock(query, key, value, scale=SCALE), method)
    far = torch.full_like(key, -50.0)
    ones = torch.ones_like(query)
    assert_close(compute(ones, far, value, method), stock(ones, far, value, scale=SCALE), method)


@METHODS
def test_nan_is_passed_on_to_its_own_rows(method: Method) -> None:
    query, key, value = split_operands(torch.randn(2, 70, 3, 2, 16))
    query = query.clone()
    query[1, 0, 3, 5] = torch.nan
    found = compute(query, key, value, method).unflatten(-1, (2, 16))
    expected = torch.zeros(2, 70, 2, 16, dtype=torch.bool)
    expected[1, 3, 0] = True
    assert torch.equal(found.isnan(), expected)
    key = key.clone()
    key[0, 1, 69, 2] = torch.nan
    found = compute(query, key, value, method).unflatten(-1, (2, 16))
    assert bool(found[0, :, 1].isnan().all())
    assert bool(found[0, :, 0].isfinite().all())


def test_other_operands_are_left_to_other_methods() -> None:
    def computes(operands: tuple[torch.Tensor, ...]) -> bool:
        query, key, value = operands
        return attend_to_all(query, key, value, SCALE, torch.empty(1, 6, 2 * 64), narrow=False)

    operands = split_operands(torch.randn(1, 6, 3, 2, 64))
    assert computes(operands)
    assert not computes(tuple(operand.bfloat16() for operand in operands))
    assert not computes(split_operands(torch.randn(1, 6, 3, 2, LANES + 1)))
    assert not computes(tuple(o.transpose(2, 3).contiguous().transpose(2, 3) for o in operands))


@METHODS
@pytest.mark.parametrize("as_one", [True, False])
def test_as_a_method_of_attention(method: Method, as_one: bool) -> None:
    joint = torch.randn(2, 37, 3, 2, 16)
    query, key, value = split_operands(joint)
    methods = MethodByLength((1,), (method,))
    found = attend(joint if as_one else (query, key, value), None, SCALE, methods)
    assert_close(found, stock(query, key, value, scale=SCALE), method)


@METHODS
def test_sequences_without_their_padding(method: Method) -> None:
    """One begins with a padding token, to whose key nothing attends."""
    real = torch.tensor([[True] * 9, [True] * 5 + [False] * 4, [False] * 3 + [True] * 6])
    layout = read_layout(real)
    joint = torch.randn(1, layout.tokens, 3, 2, 16)
    methods = MethodByLength((1,), (method,))
    found = attend_packed(joint, layout, None, SCALE, methods)
    for start, first, end in layout.sequences:
        query, key, value = split_operands(joint)
        expected = stock(
            *(query[:, :, start:end], key[:, :, first:end], value[:, :, first:end]), scale=SCALE
        )
        assert_close(found[:, start:end], expected, method)
