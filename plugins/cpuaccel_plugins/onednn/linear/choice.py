"""Whether stock torch, oneDNN or MKL computes a linear fastest here, for each shape in a model."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch

from cpuaccel_plugins.aten_graph.fastest import FastestChoice, least_times
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.nodes import FUSED_ADD, FUSED_UNARY, Linear
from cpuaccel_plugins.onednn.operators import Activation, mkldnn

Engine: TypeAlias = Literal["stock", "onednn", "mkl"]

PROBED_ROWS = 256
"""Most rows in a probe: more take longer and change no result."""

ROUNDS = 5

CACHE_BYTES = 8 * 2**20
"""Bytes of weights to use in turn, so that each has left a core's cache before it comes again."""

MOST_WEIGHTS = 32
"""Most weights in a probe. Weights so small that this is not enough stay cached in models, too."""

MARGIN = 1.03
"""How much slower than stock oneDNN may be measured and still be used, since fusions need it; and
by how much MKL has to be faster than oneDNN."""


class LinearKind(NamedTuple):
    """Which linears one probe stands for."""

    outputs: int
    inputs: int
    dtype: torch.dtype
    rows: int

    @classmethod
    def from_linear(cls, program: Program, linear: Linear, most_rows: int) -> "LinearKind":
        """The kind of a linear, with this many rows at most."""
        weight = program.tensor(linear.weight)
        outputs, inputs = weight.shape
        return cls(outputs, inputs, weight.dtype, min(linear.example_rows, most_rows))


class FusedKind(NamedTuple):
    """Which fused linears one probe stands for. With an addition there is no activation."""

    linear: LinearKind
    adds: bool
    activation: Activation


class LinearChoice:
    """Decides which linears leave the stock operator; all of them without ``measure``.

    A fused linear may still go to MKL afterwards, so being faster on either is enough.
    """

    def __init__(self, *, measure: bool = True, prepack: bool = True) -> None:
        self.engines: FastestChoice[LinearKind, Engine] = FastestChoice(
            partial(_measure_linear, prepack=prepack),
            handicaps={"stock": MARGIN},
            fixed=None if measure else "onednn",
        )

    def accepts(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is to run on oneDNN."""
        kind = LinearKind.from_linear(program, linear, PROBED_ROWS)
        return self.engines.fastest(kind) != "stock"


class MklChoice:
    """Decides which linears MKL computes, with separate operators; none without ``measure``."""

    def __init__(self, *, measure: bool = True) -> None:
        self.engines: FastestChoice[FusedKind, Engine] = FastestChoice(
            _measure_fused,
            handicaps={"mkl": MARGIN},
            fixed=None if measure and mkl.is_available() else "onednn",
        )

    def prefers_mkl(self, program: Program, linear: Linear) -> bool:
        """Whether MKL is to compute a linear, in float32."""
        kind = LinearKind.from_linear(program, linear, PROBED_ROWS)
        fused = FusedKind(kind, linear.other is not None, linear.activation)
        return self.engines.fastest(fused) == "mkl"


def _measure_linear(kind: LinearKind, *, prepack: bool) -> dict[Engine, float]:
    inputs, dense = _operands(kind)
    onednn = [mkldnn._reorder_linear_weight(w) for w in dense] if prepack else dense
    stock, blocked = itertools.cycle(dense), itertools.cycle(onednn)
    candidates: dict[Engine, Callable[[], object]] = {
        "onednn": lambda: FUSED_UNARY(inputs, next(blocked), None, "none", [], "")
    }
    if prepack and kind.dtype is torch.float32 and mkl.is_available():
        shape, packed = mkl.shape_of(dense[0]), itertools.cycle([mkl.pack(w) for w in dense])
        candidates["mkl"] = lambda: mkl.linear(inputs, next(packed), shape, None)
    candidates["stock"] = lambda: torch.nn.functional.linear(inputs, next(stock))
    return least_times(candidates, max(ROUNDS, len(dense)))


def _measure_fused(kind: FusedKind) -> dict[Engine, float]:
    inputs, dense = _operands(kind.linear)
    bias = torch.ones(kind.linear.outputs)
    other = torch.ones(kind.linear.rows, kind.linear.outputs)
    shape, packed = mkl.shape_of(dense[0]), itertools.cycle([mkl.pack(w) for w in dense])
    blocked = itertools.cycle([mkldnn._reorder_linear_weight(w) for w in dense])
    name, algorithm = kind.activation

    def by_onednn() -> object:
        if kind.adds:
            return FUSED_ADD(inputs, other, next(blocked), bias, "add")
        return FUSED_UNARY(inputs, next(blocked), bias, name, [], algorithm)

    def by_mkl() -> object:
        result = mkl.linear(inputs, next(packed), shape, bias)
        return result + other if kind.adds else kind.activation.apply(result)

    return least_times({"onednn": by_onednn, "mkl": by_mkl}, max(ROUNDS, len(dense)))


def _operands(kind: LinearKind) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """An input, and so many weights that, used in turn, each comes from memory, as in a model."""
    outputs, inputs, dtype, rows = kind
    count = min(max(1, CACHE_BYTES // (outputs * inputs * dtype.itemsize)), MOST_WEIGHTS)
    weights = [torch.ones(outputs, inputs, dtype=dtype) for _ in range(count)]
    return torch.ones(rows, inputs, dtype=dtype), weights
