"""Whether oneDNN's linear is really faster here, for each shape that a model has."""

from dataclasses import dataclass, field
from typing import Protocol

import torch

from .linears import Linear, mkldnn
from .program import Program
from .stopwatch import fastest

PROBED_ROWS = 256
"""Rows at most in a probe: more take longer and tell no more."""

ROUNDS = 5
MARGIN = 1.03
"""How much slower than stock oneDNN's may be measured and still be used: a tie goes to it, because
fusions come with it."""


class Takes(Protocol):
    """Decides which linears the passes may fuse."""

    def takes(self, program: Program, linear: Linear) -> bool:
        """Whether a linear may be fused."""


@dataclass
class Choice:
    """Decides by a short probe for each class of linears: shape, dtype and rows.

    Attributes:
        measure: whether to probe; where not, every linear runs on oneDNN.
        prepack: whether weights are packed, or shared with the model as they are.
        ratios: of the classes probed, the stock operator's time over oneDNN's.
    """

    measure: bool = True
    prepack: bool = True
    ratios: dict[tuple[int, int, torch.dtype, int], float] = field(default_factory=dict)

    def takes(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is to run on oneDNN."""
        return not self.measure or self.ratio(program, linear) * MARGIN >= 1

    def ratio(self, program: Program, linear: Linear) -> float:
        """How many times as fast as the stock operator oneDNN's is, measured once a class."""
        weight = program.held(linear.weight)
        rows = min(linear.rows, PROBED_ROWS)
        key = (*weight.shape, weight.dtype, rows)
        if key not in self.ratios:
            self.ratios[key] = _measure(*key, prepack=self.prepack)
        return self.ratios[key]


def _measure(outputs: int, inputs: int, dtype: torch.dtype, rows: int, *, prepack: bool) -> float:
    given = torch.ones(rows, inputs, dtype=dtype)
    weight = torch.ones(outputs, inputs, dtype=dtype)
    used = mkldnn._reorder_linear_weight(weight) if prepack else weight
    times = fastest(
        {
            "stock": lambda: torch.nn.functional.linear(given, weight),
            "fused": lambda: mkldnn._linear_pointwise(given, used, None, "none", [], ""),
        },
        ROUNDS,
    )
    return times["stock"] / times["fused"]
