"""Which weight layout is fastest here for each kind of convolution."""

from typing import Literal, NamedTuple, TypeAlias

import torch

from cpuaccel_plugins.aten_graph.fastest import FastestChoice, least_times
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.conv.nodes import Conv, ConvSettings, pack_conv_weight
from cpuaccel_plugins.onednn.operators import mkldnn

BATCHES = (1, 2)
"""A packed weight is laid out for one input size. For some kinds of convolution oneDNN took twelve
times as long for another batch size, so the worst of several counts."""

ROUNDS = 3
MARGIN = 1.03


WeightLayout: TypeAlias = Literal["packed", "channels_last", "stock"]
"""Packed by oneDNN, plain for oneDNN, or as it is for the stock operator."""


class ConvKind(NamedTuple):
    """Which convolutions one probe stands for."""

    dtype: torch.dtype
    weight_shape: tuple[int, ...]
    settings: ConvSettings
    input_size: tuple[int, ...]


class ConvChoice:
    """Chooses the weight layout of convolutions; without ``measure``, packed for all."""

    def __init__(self, *, measure: bool = True) -> None:
        self.layouts: FastestChoice[ConvKind, WeightLayout] = FastestChoice(
            _measure,
            handicaps={"stock": MARGIN},
            fixed=None if measure else "packed",
        )

    def layout(self, program: Program, conv: Conv) -> WeightLayout:
        """The fastest layout for a convolution."""
        weight = conv.weight_2d(program)
        kind = ConvKind(weight.dtype, tuple(weight.shape), conv.settings, conv.input_size)
        return self.layouts.fastest(kind)


def _measure(kind: ConvKind) -> dict[WeightLayout, float]:
    """For each layout its time over the fastest one's, at the worst batch size."""
    weight = torch.ones(kind.weight_shape, dtype=kind.dtype)
    packed = pack_conv_weight(weight, kind.settings, kind.input_size)
    plain = weight.contiguous(memory_format=torch.channels_last)
    padding, stride, dilation, groups = kind.settings

    def fused(inputs: torch.Tensor, weight: torch.Tensor) -> None:
        mkldnn._convolution_pointwise(inputs, weight, None, *kind.settings, "none", [], "")

    def times(batch: int) -> dict[WeightLayout, float]:
        inputs = torch.ones([batch, *kind.input_size[1:]], dtype=kind.dtype)
        # As a convolution before it leaves them, if that runs on oneDNN, too.
        channels_last = inputs.to(memory_format=torch.channels_last)
        return least_times(
            {
                "packed": lambda: fused(channels_last, packed),
                "channels_last": lambda: fused(channels_last, plain),
                "stock": lambda: torch.nn.functional.conv2d(
                    inputs, weight, None, stride, padding, dilation, groups
                ),
            },
            ROUNDS,
        )

    measured = [times(batch) for batch in BATCHES]
    return {layout: max(t[layout] / min(t.values()) for t in measured) for layout in measured[0]}
