"""The linears of a graph: stock ones, and calls of oneDNN's fused operators."""

from collections import defaultdict
from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, call, example_size, is_call, value
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION, Activation, Operands, mkldnn

FUSED_UNARY = mkldnn._linear_pointwise.default
"""A linear and an activation: (input, weight, bias, name, [], algorithm)."""

FUSED_ADD = mkldnn._linear_pointwise.binary
"""A linear and an addition: (input, other, weight, bias, "add")."""


class Linear(NamedTuple):
    """A linear that is not fused yet; weight and bias are tensors of the program."""

    node: Node
    input: Node  # (*, in features)
    weight: Node  # (out features, in features)
    bias: Node | None

    @classmethod
    def from_node(cls, program: Program, node: object) -> "Linear | None":
        """Read a node; None if it is not a linear with constant weights of a usable dtype."""
        if not is_call(node, aten.linear.default):
            return None
        operands = Operands.from_node(program, node)
        if operands is None or program.tensor(operands.weight).dim() != 2:
            return None
        return cls(node, *operands)


LinearFilter: TypeAlias = Callable[[Program, Linear], bool]
"""Decides which linears a pass may fuse."""


class FusedLinear(NamedTuple):
    """A call of oneDNN's fused linear; its weight may be packed."""

    input: Node
    weight: Node
    bias: Node | None
    activation: Activation  # none with an addition
    other: Node | None  # what is added to the result

    @classmethod
    def from_node(cls, node: Node) -> "FusedLinear":
        """Read a call of ``FUSED_UNARY`` or ``FUSED_ADD``."""
        if is_call(node, FUSED_ADD):
            inputs, other, weight, bias, _ = node.args
            activation = NO_ACTIVATION
        else:
            inputs, weight, bias, name, _, algorithm = node.args
            other, activation = None, Activation(str(name), str(algorithm))
        return cls(inputs, weight, bias, activation, other)  # type: ignore[arg-type]


def fused_linears(program: Program) -> dict[Node, list[Node]]:
    """The calls of oneDNN's fused linear, by their weight."""
    calls: dict[Node, list[Node]] = defaultdict(list)
    for node in program.calls(FUSED_UNARY, FUSED_ADD):
        calls[FusedLinear.from_node(node).weight].append(node)
    return calls


def example_rows(inputs: Node) -> int:
    """Rows of the input matrix of a linear, in the example."""
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
