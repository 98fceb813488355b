"""Whether a linear on a packed weight is really faster here, for each shape that a model has."""

import itertools
from dataclasses import dataclass, field
from typing import Protocol

import torch

from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.aten_graph.timing import fastest
from cpuaccel_plugins.onednn.heap import trim
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.linears import Linear, mkldnn

PROBED_ROWS = 256
"""Rows at most in a probe: more take longer and tell no more."""

ROUNDS = 5

CACHED = 8 * 2**20
"""Bytes of weights of which, in turn, each has left a core's cache before it comes again."""

MOST = 32
"""Weights at most in a probe: more would take longer, and such small ones stay cached in models."""

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

    Fused linears may go on to MKL, so that it counts if either is faster than the stock operator.

    Attributes:
        measure: whether to probe; where not, every linear runs on oneDNN.
        prepack: whether weights are packed, or shared with the model as they are.
        ratios: of the classes probed, the stock operator's time over that with a packed weight.
    """

    measure: bool = True
    prepack: bool = True
    ratios: dict[tuple[int, int, torch.dtype, int], float] = field(default_factory=dict)

    def takes(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is to run on oneDNN."""
        return not self.measure or self.ratio(program, linear) * MARGIN >= 1

    def ratio(self, program: Program, linear: Linear) -> float:
        """The stock operator's time over that with a packed weight, measured once a class."""
        weight = program.held(linear.weight)
        rows = min(linear.rows, PROBED_ROWS)
        key = (*weight.shape, weight.dtype, rows)
        if key not in self.ratios:
            self.ratios[key] = _measure(*key, prepack=self.prepack)
            trim()
        return self.ratios[key]


def _measure(outputs: int, inputs: int, dtype: torch.dtype, rows: int, *, prepack: bool) -> float:
    given = torch.ones(rows, inputs, dtype=dtype)
    dense = weights((outputs, inputs), dtype)
    used = [mkldnn._reorder_linear_weight(weight) for weight in dense] if prepack else dense
    stock, fused = itertools.cycle(dense), itertools.cycle(used)
    candidates = {
        "stock": lambda: torch.nn.functional.linear(given, next(stock)),
        "onednn": lambda: mkldnn._linear_pointwise(given, next(fused), None, "none", [], ""),
    }
    if prepack and dtype is torch.float32 and mkl.available():
        shaped = mkl.outline(dense[0])
        packed = itertools.cycle([mkl.pack(weight) for weight in dense])
        candidates["mkl"] = lambda: mkl.multiply(given, next(packed), shaped, None)
    times = fastest(candidates, max(ROUNDS, len(dense)))
    return times.pop("stock") / min(times.values())


def weights(shape: tuple[int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    """Weights to call with in turn, so many that each comes from memory, as it does in a model."""
    size = shape[0] * shape[1] * dtype.itemsize
    return [torch.ones(shape, dtype=dtype) for _ in range(min(max(1, CACHED // size), MOST))]
