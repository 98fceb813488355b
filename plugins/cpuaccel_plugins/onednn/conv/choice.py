"""How each convolution runs best here: packed, with plain weights, or by the stock operator."""

import enum
from dataclasses import dataclass, field

import torch

from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.aten_graph.timing import fastest
from cpuaccel_plugins.onednn.conv.convs import Conv, pack_conv
from cpuaccel_plugins.onednn.heap import trim
from cpuaccel_plugins.onednn.linear.linears import mkldnn

BATCHES = (1, 2)
"""A packed weight is laid out for one size of input. For some classes of convolution oneDNN was
measured to take twelve times as long for another batch size: so more than one is probed."""

ROUNDS = 3
MARGIN = 1.03


class Weights(enum.Enum):
    """What a convolution's weights are like."""

    PACKED = enum.auto()
    CHANNELS_LAST = enum.auto()
    STOCK = enum.auto()


@dataclass
class ConvChoice:
    """Decides by a short probe for each class of convolutions, at the example's size.

    Attributes:
        measure: whether to probe; where not, every convolution runs packed.
        found: the classes probed, and what is best for them.
    """

    measure: bool = True
    found: dict[str, Weights] = field(default_factory=dict)

    def of(self, program: Program, conv: Conv) -> Weights:
        """What weights a convolution is to run with."""
        if not self.measure:
            return Weights.PACKED
        weight = program.held(conv.weight)
        key = f"{weight.dtype} {tuple(weight.shape)} {conv.settings} {conv.input_size}"
        if key not in self.found:
            self.found[key] = _measure(weight.unsqueeze(2) if conv.flat else weight, conv)
            trim()
        return self.found[key]


def _measure(weight: torch.Tensor, conv: Conv) -> Weights:
    packed = pack_conv(weight, conv.settings, conv.input_size)
    plain = weight.contiguous(memory_format=torch.channels_last)
    worst = dict.fromkeys(Weights, 0.0)
    for batch in BATCHES:
        times = _times(conv, weight, packed, plain, batch)
        for way in Weights:
            worst[way] = max(worst[way], times[way.name] / min(times.values()))
    return min(worst, key=lambda way: worst[way] * (MARGIN if way is Weights.STOCK else 1))


def _times(
    conv: Conv, weight: torch.Tensor, packed: torch.Tensor, plain: torch.Tensor, batch: int
) -> dict[str, float]:
    padding, stride, dilation, groups = conv.settings
    given = torch.ones([batch, *conv.input_size[1:]], dtype=weight.dtype)
    # As the convolution before leaves it, where that runs on oneDNN, too.
    after = given.to(memory_format=torch.channels_last)

    def fused(weight: torch.Tensor) -> None:
        mkldnn._convolution_pointwise(after, weight, None, *conv.settings, "none", [], "")

    return fastest(
        {
            Weights.STOCK.name: lambda: torch.nn.functional.conv2d(
                given, weight, None, stride, padding, dilation, groups
            ),
            Weights.PACKED.name: lambda: fused(packed),
            Weights.CHANNELS_LAST.name: lambda: fused(plain),
        },
        ROUNDS,
    )
