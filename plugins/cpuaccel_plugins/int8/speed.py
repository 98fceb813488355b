"""Whether a linear is really faster in 8 bits here, for each shape that a model has."""

from dataclasses import dataclass, field

import torch

from cpuaccel_plugins.aten_graph.timing import fastest
from cpuaccel_plugins.int8.arithmetic import multiply, quantize, quantize_weight
from cpuaccel_plugins.int8.spread import Spread
from cpuaccel_plugins.onednn.linear.choice import ROUNDS
from cpuaccel_plugins.onednn.linear.linears import mkldnn

PROBED_ROWS = 2048
"""Rows at most in a probe. With fewer, what a call costs besides its products weighs more."""


@dataclass
class Speed:
    """Probes each class of linears once: shape, dtype and rows.

    Attributes:
        ratios: of the classes probed, the time of oneDNN's packed linear in the pipeline's
            precision over that in 8 bits, in which bringing activations to 8 bits counts.
    """

    ratios: dict[tuple[int, int, torch.dtype, int], float] = field(default_factory=dict)

    def pays(self, weight: torch.Tensor, rows: int) -> bool:
        """Whether 8 bits are faster. A tie goes to the pipeline's precision, which is exacter."""
        key = (*weight.shape, weight.dtype, min(rows, PROBED_ROWS))
        if key not in self.ratios:
            self.ratios[key] = _measure(*key)
        return self.ratios[key] > 1


def _measure(outputs: int, inputs: int, dtype: torch.dtype, rows: int) -> float:
    given = torch.ones(rows, inputs, dtype=dtype)
    weight = torch.ones(outputs, inputs, dtype=dtype)
    packed = mkldnn._reorder_linear_weight(weight)
    largest = torch.ones(inputs)
    largest[0] = 100  # as with outliers, which take longer
    spread = Spread.of(largest)
    eighth, channels = quantize_weight(weight, None, spread)
    times = fastest(
        {
            "float": lambda: mkldnn._linear_pointwise(given, packed, None, "none", [], ""),
            "int8": lambda: multiply(quantize(given, spread), eighth, channels, dtype, "none", ""),
        },
        ROUNDS,
    )
    return times["float"] / times["int8"]
