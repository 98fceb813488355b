"""The linears of a graph: stock ones, and calls of oneDNN's fused operators."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import argument, aten, call, example_size, is_call, value
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.operators import DTYPES, NO_ACTIVATION, Activation, mkldnn

FUSED_UNARY = mkldnn._linear_pointwise.default
"""A linear and an activation: (input, weight, bias, name, [], algorithm)."""

FUSED_ADD = mkldnn._linear_pointwise.binary
"""A linear and an addition: (input, other, weight, bias, "add")."""


@dataclass(frozen=True)
class Linear:
    """A linear that is not fused yet.

    Attributes:
        node: the ``aten.linear`` call.
        input: shape (*, in features).
        weight: shape (out features, in features), a tensor of the program.
        bias: shape (out features,), a tensor of the program; None without one.
    """

    node: Node
    input: Node
    weight: Node
    bias: Node | None

    @classmethod
    def from_node(cls, program: Program, node: object) -> "Linear | None":
        """Read a node; None if it is not a linear with constant weights of a usable dtype."""
        if not is_call(node, aten.linear.default):
            return None
        inputs, weight = node.args[0], node.args[1]
        bias = argument(node, 2, "bias")
        tensor = program.constant(weight)
        usable = (
            tensor is not None
            and tensor.dim() == 2
            and tensor.dtype in DTYPES
            and tensor.layout is torch.strided
            and (bias is None or program.constant(bias) is not None)
            and value(inputs) is not None
        )
        if not usable:
            return None
        assert isinstance(inputs, Node)
        assert isinstance(weight, Node)
        assert bias is None or isinstance(bias, Node)
        return cls(node, inputs, weight, bias)

    @property
    def rows(self) -> int:
        """Rows of the input matrix, in the example."""
        return _rows(self.input)


LinearFilter: TypeAlias = Callable[[Program, Linear], bool]
"""Decides which linears a pass may fuse."""


@dataclass(frozen=True)
class FusedLinear:
    """A call of oneDNN's fused linear; reads the node's arguments, which passes may change.

    Attributes:
        node: the call.
    """

    node: Node

    @property
    def other(self) -> Node | None:
        """What is added to the product; None without an addition."""
        return self._operand(1) if self._adds else None

    @property
    def input(self) -> Node:
        """Shape (*, in features)."""
        inputs = self._operand(0)
        assert inputs is not None
        return inputs

    @property
    def weight(self) -> Node:
        """Shape (out features, in features), a tensor of the program, maybe packed."""
        weight = self._operand(2 if self._adds else 1)
        assert weight is not None
        return weight

    @property
    def bias(self) -> Node | None:
        """Shape (out features,), a tensor of the program; None without one."""
        return self._operand(3 if self._adds else 2)

    @property
    def activation(self) -> Activation:
        """The activation of the result."""
        if self._adds:
            return NO_ACTIVATION
        return Activation(str(self.node.args[3]), str(self.node.args[5]))

    @property
    def rows(self) -> int:
        """Rows of the input matrix, in the example."""
        return _rows(self.input)

    @property
    def _adds(self) -> bool:
        return is_call(self.node, FUSED_ADD)

    def _operand(self, index: int) -> Node | None:
        operand = self.node.args[index]
        assert operand is None or isinstance(operand, Node)
        return operand


def fused_linears(program: Program) -> dict[Node, list[FusedLinear]]:
    """The calls of oneDNN's fused linear, by their weight."""
    linears: dict[Node, list[FusedLinear]] = defaultdict(list)
    for node in program.calls(FUSED_UNARY, FUSED_ADD):
        linear = FusedLinear(node)
        linears[linear.weight].append(linear)
    return linears


def _rows(inputs: Node) -> int:
    fake = value(inputs)
    assert fake is not None
    return prod(map(example_size, fake.shape[:-1]))


def replace_by_unary(program: Program, linear: Linear, old: Node, activation: Activation) -> None:
    """Replace a node by a fused linear with an activation, or with none."""
    graph, (name, algorithm) = program.graph, activation
    operands = linear.input, linear.weight, linear.bias
    with graph.inserting_before(old):
        program.replace(old, call(graph, FUSED_UNARY, *operands, name, [], algorithm))


def replace_by_add(program: Program, linear: Linear, old: Node, other: Node) -> None:
    """Replace a node by a fused linear with an addition."""
    graph = program.graph
    operands = linear.input, other, linear.weight, linear.bias
    with graph.inserting_before(old):
        program.replace(old, call(graph, FUSED_ADD, *operands, "add"))
