"""Quantization and the linear in 8 bits, within error bounds that follow from the scales."""

import math
import platform

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
from tests.required import INT8, requires, unmet

pytestmark = requires("torch>=2.8")

ROUNDING = 0.501
"""The largest rounding error in steps, with that of float32."""


def restored(values: torch.Tensor, split: OutlierSplit) -> torch.Tensor:
    """The values that 8 bits stand for, with split columns joined again, in float64."""
    quantized = quantize(values, split)
    steps = (quantized.values.double() - quantized.zero_point) * quantized.scale
    columns = values.shape[-1]
    whole = steps[..., :columns].clone()
    for extra, column in enumerate(split.repeated.tolist()):
        whole[..., column] += steps[..., columns + extra]
    return whole


def bound(
    values: torch.Tensor, weight: torch.Tensor, split: OutlierSplit
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact product, and the error bound of each of its elements."""
    scale = quantize(values, split).scale
    off_values = ROUNDING * scale / split.factors.double()
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


@needs_engine
@settings(deadline=None, max_examples=60)
@given(
    shape=shapes,
    seed=st.integers(0, 2**20),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e15]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
    outlier=st.sampled_from([1.0, 50.0, 1000.0]),
    split_columns=st.booleans(),
    layout=st.sampled_from(["plain", "transposed", "sliced"]),
)
def test_the_error_of_a_linear_is_within_its_bound(
    shape: tuple[int, int, int],
    seed: int,
    size: float,
    shift: float,
    outlier: float,
    split_columns: bool,
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
    split = (
        OutlierSplit.from_largest(values.abs().amax(0))
        if split_columns
        else OutlierSplit.none(inputs)
    )
    packed, channels = quantize_weight(weight, None, split)
    found = int8_linear(quantize(values, split), packed, channels, torch.float32, "none", "")
    exact, off = bound(values, weight, split)
    assert bool(((found.double() - exact).abs() <= off).all())


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), outlier=st.sampled_from([1.0, 30.0, 1e6]))
def test_the_error_of_quantization_is_within_its_bound(seed: int, outlier: float) -> None:
    values = torch.randn(7, 48, generator=torch.Generator().manual_seed(seed))
    values[:, seed % 48] *= outlier
    for split in (OutlierSplit.none(48), OutlierSplit.from_largest(values.abs().amax(0))):
        scale = quantize(values, split).scale
        off = ROUNDING * scale / split.factors.double()
        assert bool(((restored(values, split) - values.double()).abs() <= off).all())


def test_splitting_a_column_of_outliers_makes_the_others_more_exact() -> None:
    values = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    values[:, 5] *= 20
    split = OutlierSplit.from_largest(values.abs().amax(0))
    assert set(split.repeated.tolist()) == {5}
    errors = [
        float((restored(values, kept) - values.double()).norm())
        for kept in (OutlierSplit.none(96), split)
    ]
    assert errors[1] < errors[0] / 3


def test_columns_of_equal_magnitude_are_not_split() -> None:
    assert len(OutlierSplit.from_largest(torch.ones(96)).repeated) == 0
    assert len(OutlierSplit.from_largest(torch.zeros(96)).repeated) == 0


@pytest.mark.parametrize("constant", [0.0, 1.0, -2.5, 1e-42, 3e38])
def test_constant_inputs(constant: float) -> None:
    values = torch.full((3, 16), constant)
    found = restored(values, OutlierSplit.none(16))
    assert bool(((found - constant).abs() <= max(abs(constant) / 254, LEAST_SCALE)).all())
    if constant == 0:
        assert not found.any()


def test_zero_stays_zero() -> None:
    values = torch.tensor([[0.0, 1.0, -7.3, 11.7]])
    assert restored(values, OutlierSplit.none(4))[0, 0] == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_activations_that_are_not_finite_are_refused(wrong: float) -> None:
    values = torch.ones(2, 8)
    values[1, 3] = wrong
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(FloatingPointError, match="not finite"):
            quantize(values.to(dtype), OutlierSplit.none(8))


def test_quantization_does_not_change_its_input() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(4, 48).to(dtype)
        kept = values.clone()
        quantize(values, OutlierSplit.from_largest(torch.tensor([50.0] + [1.0] * 47)))
        quantize(values, OutlierSplit.none(48))
        assert torch.equal(values, kept)


@needs_engine
def test_channels_of_zero_yield_their_bias() -> None:
    weight, bias = torch.zeros(16, 8), torch.arange(16.0)
    packed, channels = quantize_weight(weight, bias, OutlierSplit.none(8))
    quantized = quantize(torch.randn(3, 8), OutlierSplit.none(8))
    found = int8_linear(quantized, packed, channels, torch.float32, "none", "")
    assert torch.equal(found, bias.expand(3, 16))


@needs_engine
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
    split = OutlierSplit.none(16)
    packed, channels = quantize_weight(weight, None, split)
    quantized = quantize(values, split)
    plain = int8_linear(quantized, packed, channels, torch.float32, "none", "")
    kept = other.clone()
    found = int8_linear_add(quantized, other, packed, channels, torch.float32)
    torch.testing.assert_close(found, plain + kept)
    assert torch.equal(other, kept)


@needs_engine
@pytest.mark.parametrize("algorithm", ["none", "tanh"])
def test_both_gelus(algorithm: str) -> None:
    values = torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    packed, channels = quantize_weight(torch.eye(16), None, OutlierSplit.none(16))
    quantized = quantize(values, OutlierSplit.none(16))
    plain = int8_linear(quantized, packed, channels, torch.float32, "none", "")
    found = int8_linear(quantized, packed, channels, torch.float32, "gelu", algorithm)
    torch.testing.assert_close(found, gelu(plain, approximate=algorithm), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions are those of x86")
def test_sums_saturate_exactly_where_instructions_for_8_bits_are_missing() -> None:
    assert sums_are_exact() == (not unmet((INT8,)))
