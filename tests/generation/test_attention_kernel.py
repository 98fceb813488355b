"""Attention, norms and feed-forward networks by the kernels: what torch computes, for all sizes."""

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from cpuaccel_plugins.decoding import library
from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.structures import (
    NO_NORM,
    TYPES,
    CAttention,
    CFeedForward,
    CHeads,
    CLinear,
    CNorm,
    cached,
    seen,
)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bf16"])


def linear(inputs: int, outputs: int, dtype: torch.dtype) -> FewRowsLinear:
    return FewRowsLinear(torch.nn.Linear(inputs, outputs).to(dtype), library.kernels())


def attended(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    output: FewRowsLinear,
    **what: object,
) -> torch.Tensor:
    """The kernels' attention after the output; query: float32 (batch, tokens, heads, size)."""
    batch, tokens, heads, size = query.shape
    nothing = torch.zeros(batch, tokens, output.out_features, dtype=keys.dtype)
    result = torch.empty_like(nothing)
    described = CAttention(
        *(output.described, NO_NORM, NO_NORM), CHeads(heads, keys.shape[1], size, size**-0.5)
    )
    mask = what.pop("mask", None)
    library.kernels().cpuaccel_attend(
        *(ctypes.byref(described), query.data_ptr()),
        *(ctypes.byref(cached(keys)), ctypes.byref(cached(values))),
        ctypes.byref(seen(mask, keys.shape[2], **what)),  # type: ignore[arg-type]
        *(batch, tokens, nothing.data_ptr(), result.data_ptr(), TYPES[keys.dtype]),
    )
    return result


def expected(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    output: FewRowsLinear,
    mask: torch.Tensor,
) -> torch.Tensor:
    group = query.shape[2] // keys.shape[1]
    wide = [part.float().repeat_interleave(group, 1) for part in (keys, values)]
    context = functional.scaled_dot_product_attention(
        query.transpose(1, 2), *wide, attn_mask=mask, scale=query.shape[3] ** -0.5
    )
    joint = context.transpose(1, 2).flatten(2).to(keys.dtype)
    return functional.linear(joint, output.weight, output.bias)


def assert_close(found: torch.Tensor, reference: torch.Tensor) -> None:
    limit = TOLERANCE[found.dtype]
    torch.testing.assert_close(found, reference, atol=limit, rtol=limit)


@DTYPES
@pytest.mark.parametrize("length", [1, 3, 16, 37])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(2, 2, 5), (7, 1, 16), (4, 2, 40)])
@torch.no_grad()
def test_own_tokens(heads: int, key_heads: int, size: int, length: int, dtype: torch.dtype) -> None:
    """Causal ones, and those that a mask leaves, by up to 12 rows."""
    output = linear(heads * size, 9, dtype)
    for batch, tokens in ((1, 1), (3, 1), (2, min(3, length)), (12, 1)):
        query = torch.randn(batch, tokens, heads, size)
        keys, values = torch.randn(2, batch, key_heads, length, size, dtype=dtype).unbind()
        places = torch.arange(length - tokens, length)[:, None]
        causal = torch.arange(length) <= places
        assert_close(
            attended(query, keys, values, output), expected(query, keys, values, output, causal)
        )
        mask = torch.rand(batch, 1, tokens, length) < 0.5
        mask[..., 0] = True
        assert_close(
            attended(query, keys, values, output, mask=mask),
            expected(query, keys, values, output, mask),
        )
        bias = torch.randn(1, heads, tokens, length)
        assert_close(
            attended(query, keys, values, output, mask=mask, bias=bias),
            expected(query, keys, values, output, bias.masked_fill(~mask, -torch.inf)),
        )


@DTYPES
@pytest.mark.parametrize("size", [5, 16, 64, 80])
@torch.no_grad()
def test_rows_that_share_keys(size: int, dtype: torch.dtype) -> None:
    """As beams do with those of an encoder's output; some places are not used."""
    output = linear(2 * size, 9, dtype)
    keys, values = torch.randn(2, 3, 2, 21, size, dtype=dtype).unbind()
    for places in ([1], [0, 0, 2, 2, 0], [2] * 7 + [1] * 4, [*range(3)]):
        at = torch.tensor(places)
        query = torch.randn(len(places), 2, 2, size)
        mask = torch.rand(len(places), 1, 2, 21) < 0.7
        mask[..., 3] = True
        for given in (mask, None):
            found = attended(query, keys, values, output, mask=given, places=at, is_causal=False)
            all_keys = torch.ones_like(mask) if given is None else given
            assert_close(found, expected(query, keys[at], values[at], output, all_keys))


@torch.no_grad()
def test_a_row_that_sees_nothing_is_zero() -> None:
    output = linear(16, 9, torch.float32)
    keys, values = torch.randn(2, 1, 2, 4, 8).unbind()
    mask = torch.zeros(1, 1, 1, 4, dtype=torch.bool)
    found = attended(torch.randn(1, 1, 2, 8), keys, values, output, mask=mask)
    assert torch.equal(found[0, 0], output.bias)


@torch.no_grad()
def test_nan_is_passed_on() -> None:
    output = linear(16, 9, torch.float32)
    keys, values = torch.randn(2, 2, 2, 4, 8).unbind()
    keys[1, 0, 2, 3] = torch.nan
    found = attended(torch.randn(2, 1, 2, 8), keys, values, output)
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())


ACTIVATIONS: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {
    0: functional.silu,
    1: functional.gelu,
    2: lambda x: functional.gelu(x, approximate="tanh"),
    3: functional.relu,
}


@DTYPES
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [1, 5])
@torch.no_grad()
def test_feed_forward(rows: int, activation: int, dtype: torch.dtype) -> None:
    """Without a gate; normalized before, or after the sum."""
    up, down = linear(24, 37, dtype), linear(37, 24, dtype)
    norm = torch.nn.LayerNorm(24)
    norm.weight.uniform_(-2, 2)
    norm.bias.uniform_(-1, 1)
    described = CNorm(norm.weight.data_ptr(), norm.bias.data_ptr(), 24, norm.eps)
    hidden = (3 * torch.randn(rows, 24) + 1).to(dtype)
    for is_before in (True, False):
        before, closing = (described, NO_NORM) if is_before else (NO_NORM, described)
        network = CFeedForward(
            *(before, CLinear(), up.described, down.described, NO_NORM, closing, activation)
        )
        found = torch.empty_like(hidden)
        library.kernels().cpuaccel_feed_forward(
            *(ctypes.byref(network), hidden.data_ptr(), found.data_ptr(), TYPES[dtype], rows)
        )
        wide = [part.weight.float() for part in (up, down)]
        x = norm(hidden.float()) if is_before else hidden.float()
        x = ACTIVATIONS[activation](functional.linear(x, wide[0], up.bias.float()))
        x = hidden.float() + functional.linear(x, wide[1], down.bias.float())
        reference = x if is_before else norm(x)
        scale = reference.abs().max()
        assert_close(found / scale, (reference / scale).to(dtype))


@torch.no_grad()
def test_activations_of_extreme_numbers() -> None:
    """The identity before and after: each number is that of torch, also large and tiny ones."""
    for activation, function in ACTIVATIONS.items():
        values = torch.tensor([0.0, -0.0, 1e-30, 1e-4, -1e-4, 3.3, -3.3, 9, -9, 80, -80, 1e6, -1e6])
        size = len(values)
        eye = torch.nn.Linear(size, size, bias=False)
        eye.weight.copy_(torch.eye(size))
        same = FewRowsLinear(eye, library.kernels())
        network = CFeedForward(
            NO_NORM, CLinear(), *[same.described] * 2, NO_NORM, NO_NORM, activation
        )
        found = torch.empty(1, size)
        library.kernels().cpuaccel_feed_forward(
            *(ctypes.byref(network), values.data_ptr(), found.data_ptr(), 0, 1)
        )
        torch.testing.assert_close(found[0], values + function(values), atol=1e-6, rtol=1e-6)
