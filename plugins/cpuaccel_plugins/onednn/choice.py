"""Whether oneDNN's packed linear is really faster here, for each shape that a model has."""

from dataclasses import dataclass, field

import torch

from .convs import Conv, pack_conv
from .linears import Linear, mkldnn
from .program import Program
from .stopwatch import fastest

PROBED_ROWS = 256
"""Rows at most in a probe: more take longer and tell no more."""

PROBED_BATCH = 2
"""The same of images."""

ROUNDS = 5
MARGIN = 1.03
"""How much slower than stock a packed linear may be measured and still be used: a tie goes to it,
because fusions come with it."""


@dataclass
class Choice:
    """Decides by a short probe for each class of linears: shape, dtype and rows.

    Attributes:
        measure: whether to probe; where not, every linear runs packed.
        ratios: of the classes probed, the stock operator's time over the packed one's.
    """

    measure: bool = True
    ratios: dict[tuple[int, int, torch.dtype, int], float] = field(default_factory=dict)

    def takes(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is to run packed."""
        return not self.measure or self.ratio(program, linear) * MARGIN >= 1

    def ratio(self, program: Program, linear: Linear) -> float:
        """How many times as fast as the stock operator the packed one is, measured once a class."""
        weight = program.constant(linear.weight)
        assert weight is not None
        rows = min(linear.rows, PROBED_ROWS)
        key = (*weight.shape, weight.dtype, rows)
        if key not in self.ratios:
            self.ratios[key] = _measure_linear(*key)
        return self.ratios[key]


def _measure_linear(outputs: int, inputs: int, dtype: torch.dtype, rows: int) -> float:
    given = torch.ones(rows, inputs, dtype=dtype)
    weight = torch.ones(outputs, inputs, dtype=dtype)
    packed = mkldnn._reorder_linear_weight(weight)
    times = fastest(
        {
            "stock": lambda: torch.nn.functional.linear(given, weight),
            "packed": lambda: mkldnn._linear_pointwise(given, packed, None, "none", [], ""),
        },
        ROUNDS,
    )
    return times["stock"] / times["packed"]


@dataclass
class ConvChoice:
    """The same for convolutions, each class probed at the example's size.

    Attributes:
        measure: whether to probe; where not, every convolution runs packed.
        ratios: of the classes probed, the stock operator's time over the packed one's.
    """

    measure: bool = True
    ratios: dict[str, float] = field(default_factory=dict)

    def takes(self, program: Program, conv: Conv) -> bool:
        """Whether a convolution is to run packed."""
        weight = program.constant(conv.weight)
        assert weight is not None
        if not self.measure:
            return True
        key = f"{weight.dtype} {tuple(weight.shape)} {conv.settings} {conv.input_size}"
        if key not in self.ratios:
            self.ratios[key] = _measure_conv(weight.unsqueeze(2) if conv.flat else weight, conv)
        return self.ratios[key] * MARGIN >= 1


def _measure_conv(weight: torch.Tensor, conv: Conv) -> float:
    padding, stride, dilation, groups = conv.settings
    size = [min(conv.input_size[0], PROBED_BATCH), *conv.input_size[1:]]
    given = torch.ones(size, dtype=weight.dtype)
    # As the convolution before it leaves it, where that is packed, too.
    after = given.to(memory_format=torch.channels_last)
    packed = pack_conv(weight, conv.settings, size)
    stock, fused = torch.nn.functional.conv2d, mkldnn._convolution_pointwise
    times = fastest(
        {
            "stock": lambda: stock(given, weight, None, stride, padding, dilation, groups),
            "packed": lambda: fused(after, packed, None, *conv.settings, "none", [], ""),
        },
        ROUNDS,
    )
    return times["stock"] / times["packed"]
