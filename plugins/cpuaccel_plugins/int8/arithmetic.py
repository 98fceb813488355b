"""What is computed at call time: activations to 8 bits, and products of them.

oneDNN's fast kernels take unsigned activations, with one scale and one zero point for all of a
tensor, and signed weights, with a scale for each output channel. Sums are exact, in 32 bits.
"""

import functools
import math
from dataclasses import dataclass

import torch

from cpuaccel_plugins.int8.spread import Spread

onednn = torch.ops.onednn

STEPS = 254
"""Steps between the least and the largest activation: one fewer than there is room for, so that
rounding can't leave 8 bits."""

WEIGHT_STEPS = 127

MOST_INPUTS = 2**31 // (255 * WEIGHT_STEPS)
"""Inputs of a linear at most: more might overflow 32 bits."""

ROUNDS = 1.5 * 2**23
"""Added to a float32 of less than 22 bits, it leaves the nearest integer in the lowest bits."""

LEAST_SCALE = torch.finfo(torch.float32).tiny

ACTIVATIONS = frozenset({"none", "relu", "tanh", "swish", "gelu"})
"""What oneDNN's 8 bit linear computes of its result; sigmoid, unlike in float32, it does not."""


@dataclass(frozen=True)
class Quantized:
    """Activations in 8 bits.

    Attributes:
        values: uint8, contiguous, shape (*, in features and those repeated).
        scale: what one step means.
        zero: the value that stands for 0.
    """

    values: torch.Tensor
    scale: float
    zero: int


@dataclass(frozen=True)
class Channels:
    """What belongs to a weight's output channels.

    Attributes:
        scales: float32, shape (out features,).
        zeros: int64, all 0, of the same shape.
        bias: float32, of the same shape; None without one.
    """

    scales: torch.Tensor
    zeros: torch.Tensor
    bias: torch.Tensor | None


def quantize(given: torch.Tensor, spread: Spread) -> Quantized:
    """Activations to 8 bits, by their least and largest; 0 stays exactly 0.

    Args:
        given: float32 or bfloat16, shape (*, in features), at least one element.
        spread: what to divide the columns by, and to repeat.

    Raises:
        FloatingPointError: some are not finite: then there is no scale, and the original answers.
    """
    columns, extra = given.shape[-1], len(spread.repeated)
    flat = given.reshape(-1, columns)
    divided = flat.float()
    if extra:
        divided = flat * spread.factors if divided is flat else divided.mul_(spread.factors)
    low, high = (bound.item() for bound in torch.aminmax(divided))
    if not math.isfinite(high - low):
        raise FloatingPointError("the activations are not finite, so 8 bits can't hold them")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / STEPS, LEAST_SCALE)
    zero = math.ceil(-low / scale)
    # The integers are in the lowest byte of the sum; a cast to uint8 is modulo 256.
    offset = torch.tensor(ROUNDS + zero)
    shifted = torch.empty_like(divided) if divided is flat else divided
    torch.add(offset, divided, alpha=1 / scale, out=shifted)
    values = torch.empty(len(flat), columns + extra, dtype=torch.uint8)
    values[:, :columns] = shifted.view(torch.int32)
    if extra:  # selected in 32 bits, which takes a quarter of the time that it takes in 8
        values[:, columns:] = shifted.index_select(1, spread.repeated).view(torch.int32)
    return Quantized(values.view(*given.shape[:-1], columns + extra), scale, zero)


def quantize_weight(
    weight: torch.Tensor, bias: torch.Tensor | None, spread: Spread
) -> tuple[torch.Tensor, Channels]:
    """A linear's weight to 8 bits, each output channel by its largest magnitude.

    Args:
        weight: finite, shape (out features, in features).
        bias: shape (out features,).
        spread: of the activations that it will be multiplied with.

    Returns:
        The weight in oneDNN's blocked layout, and what belongs to its channels.
    """
    exact = weight.float()
    scales = (exact.abs().amax(1) / WEIGHT_STEPS).clamp_min(LEAST_SCALE)
    steps = (exact / scales[:, None]).round_().clamp_(-WEIGHT_STEPS, WEIGHT_STEPS).to(torch.int8)
    wide = torch.cat([steps, steps.index_select(1, spread.repeated)], 1)
    packed: torch.Tensor = onednn.qlinear_prepack(wide, None)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    return packed, Channels(scales, zeros, None if bias is None else bias.float())


def multiply(
    given: Quantized,
    weight: torch.Tensor,
    channels: Channels,
    dtype: torch.dtype,
    activation: str,
    algorithm: str,
) -> torch.Tensor:
    """A linear, and an activation of its result.

    Args:
        given: shape (*, in features and those repeated).
        weight: packed.
        channels: the weight's.
        dtype: of the answer.
        activation: one of ``ACTIVATIONS``.
        algorithm: ``none`` or ``tanh`` for gelu, empty for others.

    Returns:
        Shape (*, out features).
    """
    result: torch.Tensor = onednn.qlinear_pointwise(
        given.values,
        given.scale,
        given.zero,
        weight,
        channels.scales,
        channels.zeros,
        channels.bias,
        1.0,
        0,
        dtype,
        activation,
        [],
        algorithm,
    )
    return result


def multiply_add(
    given: Quantized,
    other: torch.Tensor,
    weight: torch.Tensor,
    channels: Channels,
    dtype: torch.dtype,
) -> torch.Tensor:
    """A linear, and another tensor of its result's shape added to it."""
    result: torch.Tensor = onednn.qlinear_pointwise.binary(
        given.values,
        given.scale,
        given.zero,
        weight,
        channels.scales,
        channels.zeros,
        other.contiguous(),  # of other strides it reads other memory (torch 2.13)
        channels.bias,
        1.0,
        0,
        dtype,
        1.0,
        0,
        "add",
        1.0,
        "none",
        [],
        "",
    )
    return result


@functools.cache
def sums_are_exact() -> bool:
    """Whether 8 bit products are summed without saturating here; found by computing some.

    Without VNNI they are not: pairs of products are added in 16 bits.
    """
    inputs = 64
    weight = torch.full((64, inputs), WEIGHT_STEPS, dtype=torch.int8)
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = onednn.qlinear_prepack(weight, None)
    given = Quantized(torch.full((4, inputs), 255, dtype=torch.uint8), 1.0, 0)
    found = multiply(given, packed, Channels(ones, zeros, None), torch.float32, "none", "")
    return bool((found == 255 * WEIGHT_STEPS * inputs).all())
