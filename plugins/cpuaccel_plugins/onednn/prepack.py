"""Pass: weights of linears into oneDNN's blocked layout."""

import torch
from torch.fx import Node

from .choice import Choice
from .linears import Linear, fused_unary, mkldnn
from .program import Program, aten

_WEIGHT_ARGUMENT = {
    mkldnn._linear_pointwise.default: 1,
    mkldnn._linear_pointwise.binary: 2,
}


def fuse_rest(program: Program, choice: Choice) -> None:
    """Put the linears on oneDNN that nothing was fused with, where it is faster."""
    for node in program.calls(aten.linear.default):
        linear = Linear.of(program, node)
        if linear is None:
            program.left["linears whose weights are no constants of a usable dtype"] += 1
        elif choice.takes(program, linear):
            fused_unary(program, linear, node, "none")
        else:
            program.left["linears that the stock operator runs as fast"] += 1


def prepack(program: Program) -> None:
    """Pack the weights of all linears on oneDNN.

    A weight is packed once, however many linears share it, and its dense form is let go. Those
    packed already stay as they are.
    """
    packed: dict[Node, Node] = {}
    for node in program.calls(*_WEIGHT_ARGUMENT):
        index = _WEIGHT_ARGUMENT[node.target]  # type: ignore[index]
        dense = node.args[index]
        assert isinstance(dense, Node)
        weight = program.constant(dense)
        assert weight is not None
        if weight.is_mkldnn:
            continue
        if dense not in packed:
            blocked: torch.Tensor = mkldnn._reorder_linear_weight(weight.contiguous())
            with program.graph.inserting_before(dense):
                packed[dense] = program.hold(blocked, f"{dense.target}_packed", like=weight)
        node.update_arg(index, packed[dense])
    program.sweep()
    program.packed += len(packed)
