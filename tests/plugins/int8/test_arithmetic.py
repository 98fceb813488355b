"""The linear in 8 bits against a float64 one, within bounds that follow from its scales."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu

from cpuaccel_plugins.int8.arithmetic import (
    LEAST_SCALE,
    int8_linear,
    int8_linear_add,
    quantize,
    quantize_weight,
    sums_are_exact,
)
from cpuaccel_plugins.int8.outliers import OutlierSplit
from tests.plugins.int8.host import needs_engine

pytestmark = needs_engine

ROUNDING = 0.501
"""Of a step, the most that a value is moved by; float32's own rounding is in it."""


def restored(values: torch.Tensor, spread: OutlierSplit) -> torch.Tensor:
    """What the 8 bits stand for, columns put together again, in float64."""
    eighth = quantize(values, spread)
    steps = (eighth.values.double() - eighth.zero_point) * eighth.scale
    columns = values.shape[-1]
    whole = steps[..., :columns].clone()
    for extra, column in enumerate(spread.repeated.tolist()):
        whole[..., column] += steps[..., columns + extra]
    return whole


def bound(
    values: torch.Tensor, weight: torch.Tensor, spread: OutlierSplit
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact product, and how far each of its elements may be off."""
    scale = quantize(values, spread).scale
    off_values = ROUNDING * scale / spread.factors.double()
    channel = (weight.double().abs().amax(1) / 127).clamp_min(LEAST_SCALE)
    off_weight = ROUNDING * channel[:, None]
    exact = values.double() @ weight.double().T
    off = (
        off_values @ weight.double().abs().T
        + values.double().abs() @ off_weight.expand_as(weight).T
        + (off_values @ off_weight.expand_as(weight).T)
    )
    return exact, off + 1e-5 * (values.double().abs() @ weight.double().abs().T) + 1e-30


shapes = st.tuples(st.integers(1, 9), st.integers(1, 90), st.integers(1, 40))


@settings(deadline=None, max_examples=60)
@given(
    shape=shapes,
    seed=st.integers(0, 2**20),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e15]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
    outlier=st.sampled_from([1.0, 50.0, 1000.0]),
    spread_out=st.booleans(),
    layout=st.sampled_from(["plain", "transposed", "sliced"]),
)
def test_the_error_stays_within_what_the_scales_allow(
    shape: tuple[int, int, int],
    seed: int,
    size: float,
    shift: float,
    outlier: float,
    spread_out: bool,
    layout: str,
) -> None:
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(rows, inputs, generator=generator) + shift) * size
    values[:, seed % inputs] *= outlier
    if layout == "transposed":
        values = values.T.contiguous().T
    elif layout == "sliced":
        values = torch.cat([values, values], 1)[:, :inputs]
    weight = torch.randn(outputs, inputs, generator=generator)
    spread = (
        OutlierSplit.from_largest(values.abs().amax(0)) if spread_out else OutlierSplit.none(inputs)
    )
    packed, channels = quantize_weight(weight, None, spread)
    found = int8_linear(quantize(values, spread), packed, channels, torch.float32, "none", "")
    exact, off = bound(values, weight, spread)
    assert bool(((found.double() - exact).abs() <= off).all())


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), outlier=st.sampled_from([1.0, 30.0, 1e6]))
def test_8_bits_stand_for_what_they_were_made_of(seed: int, outlier: float) -> None:
    values = torch.randn(7, 48, generator=torch.Generator().manual_seed(seed))
    values[:, seed % 48] *= outlier
    for spread in (OutlierSplit.none(48), OutlierSplit.from_largest(values.abs().amax(0))):
        scale = quantize(values, spread).scale
        off = ROUNDING * scale / spread.factors.double()
        assert bool(((restored(values, spread) - values.double()).abs() <= off).all())


def test_a_column_of_outliers_costs_the_others_less_when_it_is_spread() -> None:
    values = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    values[:, 5] *= 20
    spread = OutlierSplit.from_largest(values.abs().amax(0))
    assert set(spread.repeated.tolist()) == {5}
    errors = [
        float((restored(values, kept) - values.double()).norm())
        for kept in (OutlierSplit.none(96), spread)
    ]
    assert errors[1] < errors[0] / 3


def test_columns_that_are_alike_are_not_spread() -> None:
    assert len(OutlierSplit.from_largest(torch.ones(96)).repeated) == 0
    assert len(OutlierSplit.from_largest(torch.zeros(96)).repeated) == 0


@pytest.mark.parametrize("constant", [0.0, 1.0, -2.5, 1e-42, 3e38])
def test_constant_inputs(constant: float) -> None:
    values = torch.full((3, 16), constant)
    found = restored(values, OutlierSplit.none(16))
    assert bool(((found - constant).abs() <= max(abs(constant) / 254, LEAST_SCALE)).all())
    if constant == 0:
        assert not found.any()


def test_zero_stays_zero_beside_anything() -> None:
    values = torch.tensor([[0.0, 1.0, -7.3, 11.7]])
    assert restored(values, OutlierSplit.none(4))[0, 0] == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    values = torch.ones(2, 8)
    values[1, 3] = wrong
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(FloatingPointError, match="not finite"):
            quantize(values.to(dtype), OutlierSplit.none(8))


def test_quantizing_leaves_its_input_alone() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(4, 48).to(dtype)
        kept = values.clone()
        quantize(values, OutlierSplit.from_largest(torch.tensor([50.0] + [1.0] * 47)))
        quantize(values, OutlierSplit.none(48))
        assert torch.equal(values, kept)


def test_channels_of_zero_give_their_bias() -> None:
    weight, bias = torch.zeros(16, 8), torch.arange(16.0)
    packed, channels = quantize_weight(weight, bias, OutlierSplit.none(8))
    eighth = quantize(torch.randn(3, 8), OutlierSplit.none(8))
    found = int8_linear(eighth, packed, channels, torch.float32, "none", "")
    assert torch.equal(found, bias.expand(3, 16))


@pytest.mark.parametrize("strides", ["plain", "transposed", "expanded"])
def test_an_addition_reads_the_right_memory(strides: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, 5, 16, generator=generator)
    weight = torch.randn(32, 16, generator=generator)
    other = torch.randn(2, 5, 32, generator=generator)
    if strides == "transposed":
        other = other.transpose(0, 1).contiguous().transpose(0, 1)
    elif strides == "expanded":
        other = other[..., :1].expand(2, 5, 32)
    spread = OutlierSplit.none(16)
    packed, channels = quantize_weight(weight, None, spread)
    eighth = quantize(values, spread)
    plain = int8_linear(eighth, packed, channels, torch.float32, "none", "")
    kept = other.clone()
    found = int8_linear_add(eighth, other, packed, channels, torch.float32)
    torch.testing.assert_close(found, plain + kept)
    assert torch.equal(other, kept)


@pytest.mark.parametrize("algorithm", ["none", "tanh"])
def test_both_gelus(algorithm: str) -> None:
    values = torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    packed, channels = quantize_weight(torch.eye(16), None, OutlierSplit.none(16))
    eighth = quantize(values, OutlierSplit.none(16))
    plain = int8_linear(eighth, packed, channels, torch.float32, "none", "")
    found = int8_linear(eighth, packed, channels, torch.float32, "gelu", algorithm)
    torch.testing.assert_close(found, gelu(plain, approximate=algorithm), rtol=1e-5, atol=1e-6)


def test_sums_do_not_saturate_here() -> None:
    assert sums_are_exact()
