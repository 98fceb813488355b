"""Linears on oneDNN: which there are, and the fused operator's own vocabulary."""

from collections import defaultdict
from dataclasses import dataclass
from math import prod

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, argument, aten, call, hint, is_call, value

mkldnn = torch.ops.mkldnn

DTYPES = (torch.float32, torch.bfloat16)
"""What the fused operator computes in here; float16 fails without AVX512-FP16."""


@dataclass(frozen=True)
class Linear:
    """A linear layer in a graph, not fused yet.

    Attributes:
        node: the ``aten.linear`` call.
        input: what it is applied to, shape (*, in features).
        weight: shape (out features, in features), held by the program.
        bias: shape (out features,), held by the program; None without one.
    """

    node: Node
    input: Node
    weight: Node
    bias: Node | None

    @classmethod
    def of(cls, program: Program, node: object) -> "Linear | None":
        """Read a node; None where it is no linear with weights of its own in a usable dtype."""
        if not is_call(node, aten.linear.default):
            return None
        given, weight = node.args[0], node.args[1]
        bias = argument(node, 2, "bias")
        held = program.constant(weight)
        usable = (
            held is not None
            and held.dim() == 2
            and held.dtype in DTYPES
            and held.layout is torch.strided
            and (bias is None or program.constant(bias) is not None)
            and value(given) is not None
        )
        if not usable:
            return None
        assert isinstance(given, Node)
        assert isinstance(weight, Node)
        assert bias is None or isinstance(bias, Node)
        return cls(node, given, weight, bias)

    @property
    def rows(self) -> int:
        """Rows of the input matrix, in the example."""
        return _rows(self.input)


@dataclass(frozen=True)
class Fused:
    """A call of oneDNN's fused linear, read anew whenever it is asked: passes change the graph.

    Attributes:
        node: the call.
    """

    node: Node

    @property
    def other(self) -> Node | None:
        """What is added to it; None where nothing is."""
        return self._operand(1) if self._adds else None

    @property
    def input(self) -> Node:
        """What it is applied to, shape (*, in features)."""
        given = self._operand(0)
        assert given is not None
        return given

    @property
    def weight(self) -> Node:
        """Shape (out features, in features), held by the program; maybe packed."""
        weight = self._operand(2 if self._adds else 1)
        assert weight is not None
        return weight

    @property
    def bias(self) -> Node | None:
        """Shape (out features,), held by the program; None without one."""
        return self._operand(3 if self._adds else 2)

    @property
    def activation(self) -> str:
        """What comes after it, in oneDNN's words; ``none`` where nothing does."""
        return "none" if self._adds else str(self.node.args[3])

    @property
    def algorithm(self) -> str:
        """Which gelu that is; empty for others."""
        return "" if self._adds else str(self.node.args[5])

    @property
    def rows(self) -> int:
        """Rows of the input matrix, in the example."""
        return _rows(self.input)

    @property
    def _adds(self) -> bool:
        return is_call(self.node, mkldnn._linear_pointwise.binary)

    def _operand(self, index: int) -> Node | None:
        operand = self.node.args[index]
        assert operand is None or isinstance(operand, Node)
        return operand


def fused_linears(program: Program) -> dict[Node, list[Fused]]:
    """The calls of oneDNN's fused linear, by the weights that they use."""
    found: dict[Node, list[Fused]] = defaultdict(list)
    for node in program.calls(mkldnn._linear_pointwise.default, mkldnn._linear_pointwise.binary):
        linear = Fused(node)
        found[linear.weight].append(linear)
    return found


def _rows(given: Node) -> int:
    found = value(given)
    assert found is not None
    return prod(map(hint, found.shape[:-1]))


def fused_unary(program: Program, linear: Linear, at: Node, name: str, algorithm: str = "") -> Node:
    """Put a linear with an activation, or with none, in the place of a node."""
    with program.graph.inserting_before(at):
        new = call(
            program.graph,
            mkldnn._linear_pointwise.default,
            linear.input,
            linear.weight,
            linear.bias,
            name,
            [],
            algorithm,
        )
    program.replace(at, new)
    return new


def fused_add(program: Program, linear: Linear, at: Node, other: Node) -> Node:
    """Put a linear with an addition in the place of a node."""
    with program.graph.inserting_before(at):
        new = call(
            program.graph,
            mkldnn._linear_pointwise.binary,
            linear.input,
            other,
            linear.weight,
            linear.bias,
            "add",
        )
    program.replace(at, new)
    return new
