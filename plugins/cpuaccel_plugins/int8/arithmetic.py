"""Quantization and linears in 8 bits, at call time.

oneDNN's fast kernels take unsigned activations, with one scale and one zero point for a whole
tensor, and signed weights, with a scale for each output channel. Sums are exact, in 32 bits.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cpuaccel import BackendError
from cpuaccel_plugins.aten_graph.keeping.kept_program import Vocabulary
from cpuaccel_plugins.int8.outliers import OutlierSplit

onednn = torch.ops.onednn

STEPS = 254
"""Steps between the least and the largest activation: one fewer than 8 bits have, so that rounding
can't overflow."""

WEIGHT_STEPS = 127

MOST_INPUTS = 2**31 // (255 * WEIGHT_STEPS)
"""Most input features of a linear: with more, sums might overflow 32 bits."""

ROUNDING = 1.5 * 2**23
"""Added to a float32 below 2**22, it leaves the nearest integer in the lowest bits."""

LEAST_SCALE = torch.finfo(torch.float32).tiny

ACTIVATIONS = frozenset({"none", "relu", "tanh", "swish", "gelu"})
"""Activations that oneDNN's 8 bit linear can fuse; sigmoid is missing, unlike in float32."""


class Quantized(NamedTuple):
    """Activations in 8 bits."""

    values: torch.Tensor  # uint8, contiguous, shape (*, in features and repeated ones)
    scale: float  # size of one step
    zero_point: int  # the value that means 0


@dataclass(frozen=True)
class Channels:
    """Parameters of a weight's output channels, each of shape (out features,)."""

    scales: torch.Tensor  # float32
    zero_points: torch.Tensor  # int64, all 0
    bias: torch.Tensor | None  # float32


def quantize(inputs: torch.Tensor, split: OutlierSplit) -> Quantized:
    """Quantize activations, shape (*, in features), by their least and largest value.

    0 stays exactly 0. FloatingPointError if one is not finite: there is no scale.
    """
    columns, extra = inputs.shape[-1], len(split.repeated)
    flat = inputs.reshape(-1, columns)
    divided = flat.float()
    if extra:
        divided = flat * split.factors if divided is flat else divided.mul_(split.factors)
    low, high = (bound.item() for bound in torch.aminmax(divided))
    if not math.isfinite(high - low):
        raise FloatingPointError("activations are not finite and can't be quantized")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / STEPS, LEAST_SCALE)
    zero_point = math.ceil(-low / scale)
    # The integer is in the lowest byte of the sum; a cast to uint8 is modulo 256.
    offset = torch.tensor(ROUNDING + zero_point)
    shifted = torch.empty_like(divided) if divided is flat else divided
    torch.add(offset, divided, alpha=1 / scale, out=shifted)
    values = torch.empty(len(flat), columns + extra, dtype=torch.uint8)
    values[:, :columns] = shifted.view(torch.int32)
    if extra:  # index_select in 32 bits takes a quarter of the time that it takes in 8
        values[:, columns:] = shifted.index_select(1, split.repeated).view(torch.int32)
    return Quantized(values.view(*inputs.shape[:-1], columns + extra), scale, zero_point)


def quantize_weight(
    weight: torch.Tensor, bias: torch.Tensor | None, split: OutlierSplit
) -> tuple[torch.Tensor, Channels]:
    """Quantize a weight by the largest magnitude of each output channel, and pack it.

    It is finite, shape (out features, in features).
    """
    exact = weight.float()
    scales = (exact.abs().amax(1) / WEIGHT_STEPS).clamp_min(LEAST_SCALE)
    steps = (exact / scales[:, None]).round_().clamp_(-WEIGHT_STEPS, WEIGHT_STEPS).to(torch.int8)
    wide = torch.cat([steps, steps.index_select(1, split.repeated)], 1)
    packed: torch.Tensor = onednn.qlinear_prepack(wide, None)
    zero_points = torch.zeros(len(weight), dtype=torch.int64)
    return packed, Channels(scales, zero_points, None if bias is None else bias.float())


def int8_linear(
    inputs: Quantized,
    weight: torch.Tensor,
    channels: Channels,
    dtype: torch.dtype,
    activation: str,
    algorithm: str,
) -> torch.Tensor:
    """Compute a linear and one of ``ACTIVATIONS``; returns shape (*, out features)."""
    scales, zeros, bias = channels.scales, channels.zero_points, channels.bias
    result: torch.Tensor = onednn.qlinear_pointwise(
        *inputs, weight, scales, zeros, bias, 1.0, 0, dtype, activation, [], algorithm
    )
    return result


def int8_linear_add(
    inputs: Quantized,
    other: torch.Tensor,
    weight: torch.Tensor,
    channels: Channels,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Compute a linear and add another tensor of its result's shape."""
    scales, zeros, bias = channels.scales, channels.zero_points, channels.bias
    other = other.contiguous()  # with other strides it reads the wrong memory (torch 2.13)
    operands = (*inputs, weight, scales, zeros, other, bias)
    result: torch.Tensor = onednn.qlinear_pointwise.binary(
        *operands, 1.0, 0, dtype, 1.0, 0, "add", 1.0, "none", [], ""
    )
    return result


@functools.cache
def sums_are_exact() -> bool:
    """Whether 8 bit products are summed without saturation here; computes some to find out.

    Without VNNI they are not: pairs of products are added in 16 bits.
    """
    features = 64
    weight = torch.full((64, features), WEIGHT_STEPS, dtype=torch.int8)
    ones, zero_points = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = onednn.qlinear_prepack(weight, None)
    inputs = Quantized(torch.full((4, features), 255, dtype=torch.uint8), 1.0, 0)
    channels = Channels(ones, zero_points, None)
    result = int8_linear(inputs, packed, channels, torch.float32, "none", "")
    return bool((result == 255 * WEIGHT_STEPS * features).all())


def require_exact_sums() -> None:
    """Raise ``BackendError`` where sums are not exact."""
    if not sums_are_exact():
        raise BackendError(
            "oneDNN's 8 bit products saturate here: it does not use the processor's VNNI",
            "Check whether ONEDNN_MAX_CPU_ISA is set, or use onednn",
        )


VOCABULARY = Vocabulary((int8_linear, int8_linear_add, quantize), (Channels, OutlierSplit))
"""What graphs contain of it."""
