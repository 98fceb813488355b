"""Whether a linear is faster by MKL, on a packed weight and with what follows it apart."""

import itertools
from dataclasses import dataclass, field
from typing import Protocol

import torch

from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.aten_graph.timing import fastest
from cpuaccel_plugins.onednn.heap import trim
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.choice import MARGIN, PROBED_ROWS, ROUNDS, weights
from cpuaccel_plugins.onednn.linear.linears import Fused, mkldnn
from cpuaccel_plugins.onednn.linear.unary import STOCK

ADD = "add"
"""In place of the activation that is fused with a linear: an addition is."""


class Prefers(Protocol):
    """Decides which of oneDNN's linears MKL is to compute."""

    def prefers(self, program: Program, linear: Fused) -> bool:
        """Whether MKL is to compute it."""


@dataclass
class MklChoice:
    """Decides by a short probe for each class of linears: shape, rows, and what is fused.

    Attributes:
        measure: whether to probe; where not, all stay on oneDNN.
        ratios: of the classes probed, oneDNN's time over MKL's.
    """

    measure: bool = True
    ratios: dict[tuple[torch.Size, int, str, str], float] = field(default_factory=dict)

    def prefers(self, program: Program, linear: Fused) -> bool:
        """Whether MKL is faster by more than what a probe may err by."""
        if not self.measure or not mkl.available():
            return False
        shape, rows = program.held(linear.weight).shape, min(linear.rows, PROBED_ROWS)
        key = (shape, rows, ADD if linear.other else linear.activation, linear.algorithm)
        if key not in self.ratios:
            self.ratios[key] = _measure(*key)
            trim()
        return self.ratios[key] > MARGIN


def _measure(shape: torch.Size, rows: int, fused: str, algorithm: str) -> float:
    given, other = torch.ones(rows, shape[1]), torch.ones(rows, shape[0])
    bias = torch.ones(shape[0])
    dense = weights((shape[0], shape[1]), torch.float32)
    shaped = mkl.outline(dense[0])
    packed = itertools.cycle([mkl.pack(weight) for weight in dense])
    blocked = itertools.cycle([mkldnn._reorder_linear_weight(weight) for weight in dense])
    single, adding = mkldnn._linear_pointwise.default, mkldnn._linear_pointwise.binary
    options = {"approximate": algorithm} if algorithm else {}

    def by_onednn() -> object:
        if fused == ADD:
            return adding(given, other, next(blocked), bias, ADD)
        return single(given, next(blocked), bias, fused, [], algorithm)

    def by_mkl() -> object:
        result = mkl.multiply(given, next(packed), shaped, bias)
        if fused == ADD:
            return result + other
        return STOCK[fused][0](result, **options) if fused in STOCK else result

    times = fastest({"onednn": by_onednn, "mkl": by_mkl}, max(ROUNDS, len(dense)))
    return times["onednn"] / times["mkl"]
