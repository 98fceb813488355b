"""Whether a linear is faster in 8 bits here, for each shape in a model."""

from typing import Literal, TypeAlias

import torch

from cpuaccel_plugins.aten_graph.fastest import FastestChoice, least_times
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.arithmetic import int8_linear, quantize, quantize_weight
from cpuaccel_plugins.int8.outliers import OutlierSplit
from cpuaccel_plugins.onednn.linear.choice import ROUNDS, LinearKind
from cpuaccel_plugins.onednn.linear.nodes import FUSED_UNARY, Linear
from cpuaccel_plugins.onednn.operators import mkldnn

Engine: TypeAlias = Literal["float", "int8"]

PROBED_ROWS = 2048
"""Most rows in a probe. With fewer, the cost of a call besides its products weighs more."""


class Int8Choice:
    """Decides which linears are computed in 8 bits; all of them without ``measure``."""

    def __init__(self, *, measure: bool = True) -> None:
        # Of two that take as long, float is chosen: it is more exact.
        self.engines: FastestChoice[LinearKind, Engine] = FastestChoice(
            _measure, fixed=None if measure else "int8"
        )

    def prefers_int8(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is to be computed in 8 bits."""
        kind = LinearKind.from_linear(program, linear, PROBED_ROWS)
        return self.engines.fastest(kind) == "int8"

    def speedups(self) -> list[float]:
        """Of the kinds that are faster in 8 bits, the speedup over oneDNN's packed linear."""
        ratios = [times["float"] / times["int8"] for times in self.engines.times.values()]
        return [ratio for ratio in ratios if ratio > 1]


def _measure(kind: LinearKind) -> dict[Engine, float]:
    inputs = torch.ones(kind.rows, kind.inputs, dtype=kind.dtype)
    weight = torch.ones(kind.outputs, kind.inputs, dtype=kind.dtype)
    packed = mkldnn._reorder_linear_weight(weight)
    largest = torch.ones(kind.inputs)
    largest[0] = 100  # an outlier, which makes quantization slower
    split = OutlierSplit.from_largest(largest)
    packed_int8, channels = quantize_weight(weight, None, split)
    return least_times(
        {
            "float": lambda: FUSED_UNARY(inputs, packed, None, "none", [], ""),
            "int8": lambda: int8_linear(
                quantize(inputs, split), packed_int8, channels, kind.dtype, "none", ""
            ),
        },
        ROUNDS,
    )
