"""Whether oneDNN's packed linear is really faster here, for each shape that a model has."""

from dataclasses import dataclass, field

import torch

from .linears import Linear, mkldnn
from .program import Program
from .stopwatch import fastest

PROBED_ROWS = 256
"""Rows at most in a probe: more take longer and tell no more."""

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
