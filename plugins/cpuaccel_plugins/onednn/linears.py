"""Linears on oneDNN: which there are, and the fused operator's own vocabulary."""

from dataclasses import dataclass

import torch
from torch.fx import Node

from .program import Program, argument, aten, call, hint, is_call, value

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
        assert isinstance(node, Node)
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
        found = value(self.input)
        assert found is not None
        rows = 1
        for size in found.shape[:-1]:
            rows *= hint(size)
        return rows


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
