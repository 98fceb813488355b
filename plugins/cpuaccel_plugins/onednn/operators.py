"""What oneDNN's fused operators in stock torch compute: dtypes, operands, activations."""

from typing import NamedTuple

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import (
    argument,
    aten,
    call,
    dtype,
    is_call,
    same_shape,
    value,
)
from cpuaccel_plugins.aten_graph.program import Program

mkldnn = torch.ops.mkldnn

DTYPES = (torch.float32, torch.bfloat16)
"""Dtypes that backends here use it for; float16 fails without AVX512-FP16."""

_NAMES = {
    aten.relu.default: "relu",
    aten.silu.default: "swish",
    aten.tanh.default: "tanh",
    aten.sigmoid.default: "sigmoid",
    aten.gelu.default: "gelu",
}
"""An activation's name in oneDNN's operators."""

_OPERATORS = {name: operator for operator, name in _NAMES.items()}

ACTIVATIONS = tuple(_NAMES)


class Operands(NamedTuple):
    """Operands of a linear or a convolution; weight and bias are tensors of the program."""

    input: Node
    weight: Node
    bias: Node | None

    @classmethod
    def from_node(cls, program: Program, node: Node) -> "Operands | None":
        """Read a node; None if its weights are not constants of a usable dtype."""
        inputs, weight, bias = node.args[0], node.args[1], argument(node, "bias")
        tensor = program.constant(weight)
        if (
            tensor is None
            or tensor.dtype not in DTYPES
            or tensor.layout is not torch.strided
            or value(inputs) is None
            or (bias is not None and program.constant(bias) is None)
        ):
            return None
        return cls(inputs, weight, bias)  # type: ignore[arg-type]


class Activation(NamedTuple):
    """An activation, as oneDNN's operators take it."""

    name: str  # "none" for no activation
    algorithm: str = ""  # "none" or "tanh" for gelu

    @classmethod
    def from_node(cls, node: Node) -> "Activation":
        """The activation that one of the ``ACTIVATIONS`` computes."""
        gelu = is_call(node, aten.gelu.default)
        algorithm = str(argument(node, "approximate")) if gelu else ""
        return cls(_NAMES[node.target], algorithm)  # type: ignore[index]

    @property
    def label(self) -> str:
        """The name in evidence, such as ``silu`` in ``linear+silu``."""
        return "silu" if self.name == "swish" else self.name

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """Compute it by the stock operator."""
        if self == NO_ACTIVATION:
            return tensor
        options = {"approximate": self.algorithm} if self.algorithm else {}
        result: torch.Tensor = _OPERATORS[self.name](tensor, **options)
        return result

    def add_call(self, program: Program, node: Node) -> Node:
        """Add a call of the stock operator on a node, at the graph's insertion point."""
        new = call(program.graph, _OPERATORS[self.name], node)
        if self.algorithm:
            new.kwargs = {"approximate": self.algorithm}
        return new


NO_ACTIVATION = Activation("none")


def only_user(node: Node) -> Node | None:
    """The node that uses the result of another one, if there is only one."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def added_to(node: Node, addition: Node) -> Node | None:
    """What a node that uses ``node`` adds to it, unless it broadcasts, casts or scales."""
    if not is_call(addition, aten.add.Tensor) or argument(addition, "alpha") != 1:
        return None
    other = addition.args[1] if addition.args[0] is node else addition.args[0]
    if not isinstance(other, Node) or other is node:
        return None
    alike = same_shape(node, other) and dtype(node) == dtype(other)
    return other if alike else None
