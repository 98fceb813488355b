"""Pass: weights of linears into oneDNN's blocked layout."""

import functools
from collections import defaultdict

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

    A weight is packed once, however many linears share it. Its dense form is let go at once, and
    so is the model's own where that was given up. Those packed already stay as they are.
    """
    users: dict[Node, list[Node]] = defaultdict(list)
    for node in program.calls(*_WEIGHT_ARGUMENT):
        dense = node.args[_weight_at(node)]
        assert isinstance(dense, Node)
        users[dense].append(node)
    for dense, linears in users.items():
        weight = program.held(dense)
        if weight.is_mkldnn:
            continue
        packed: torch.Tensor = mkldnn._reorder_linear_weight(weight.contiguous())
        with program.graph.inserting_before(dense):
            held = program.hold(packed, f"{dense.target}_packed", like=weight)
        for node in linears:
            node.update_arg(_weight_at(node), held)
        _let_go(program, dense, packed)
        program.packed += 1
    program.sweep()


def _let_go(program: Program, dense: Node, packed: torch.Tensor) -> None:
    """Forget a dense weight and what it was joined of, if nothing else uses them."""
    parts = program.joined.pop(dense, [dense])
    weights = [program.held(part) for part in parts]
    program.drop(dense)
    start = 0
    for part, weight in zip(parts, weights):
        rows = slice(start, start + len(weight))
        start = rows.stop
        if program.drop(part) and program.release is not None:
            restore = functools.partial(_unpacked, packed, rows)
            program.released += program.release(weight, restore)


def _unpacked(packed: torch.Tensor, rows: slice) -> torch.Tensor:
    whole = packed.to_dense()
    part = whole[rows]
    return part if len(part) == len(whole) else part.clone()


def _weight_at(node: Node) -> int:
    return _WEIGHT_ARGUMENT[node.target]  # type: ignore[index]
