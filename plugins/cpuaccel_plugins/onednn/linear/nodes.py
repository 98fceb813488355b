"""The linears of a graph: stock ones, and calls of oneDNN's fused operators."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import call, example_shape, is_call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION, Activation, Operands, mkldnn

FUSED_UNARY = mkldnn._linear_pointwise.default
"""A linear and an activation: (input, weight, bias, name, [], algorithm)."""

FUSED_ADD = mkldnn._linear_pointwise.binary
"""A linear and an addition: (input, other, weight, bias, "add")."""


class Linear(NamedTuple):
    """A linear, and what is fused with it; weight and bias are tensors of the program."""

    input: Node  # (*, in features)
    weight: Node  # (out features, in features)
    bias: Node | None
    activation: Activation = NO_ACTIVATION  # none with an addition
    other: Node | None = None  # what is added to the result

    @classmethod
    def from_stock(cls, program: Program, node: Node) -> "Linear | None":
        """Read a stock linear; None if its weights are not constants of a usable dtype."""
        operands = Operands.from_node(program, node)
        if operands is None or program.tensor(operands.weight).dim() != 2:
            return None
        return cls(*operands)

    @classmethod
    def from_fused(cls, node: Node) -> "Linear":
        """Read a call of ``FUSED_UNARY`` or ``FUSED_ADD``, whose weight may be packed."""
        if is_call(node, FUSED_ADD):
            inputs, other, weight, bias, _ = node.args
            return cls(inputs, weight, bias, other=other)  # type: ignore[arg-type]
        inputs, weight, bias, name, _, algorithm = node.args
        return cls(inputs, weight, bias, Activation(str(name), str(algorithm)))  # type: ignore[arg-type]

    @property
    def example_rows(self) -> int:
        """Rows of the input matrix in the example."""
        return prod(example_shape(self.input)[:-1])

    def add_call(self, program: Program) -> Node:
        """Add a call of ``FUSED_UNARY`` or ``FUSED_ADD`` at the graph's insertion point."""
        inputs, weight, bias, (name, algorithm), other = self
        if other is not None:
            return call(program.graph, FUSED_ADD, inputs, other, weight, bias, "add")
        return call(program.graph, FUSED_UNARY, inputs, weight, bias, name, [], algorithm)


LinearFilter: TypeAlias = Callable[[Program, Linear], bool]
"""Decides for which linears a pass does something."""
