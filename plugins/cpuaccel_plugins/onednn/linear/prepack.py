"""Pass: weights of linears into oneDNN's blocked layout."""

import functools
from collections.abc import Callable

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten
from cpuaccel_plugins.onednn.linear.choice import Takes
from cpuaccel_plugins.onednn.linear.linears import Linear, fused_linears, fused_unary, mkldnn


def fuse_rest(program: Program, choice: Takes) -> None:
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
    for dense, linears in fused_linears(program).items():
        weight = program.held(dense)
        if weight.is_mkldnn:
            continue
        packed: torch.Tensor = mkldnn._reorder_linear_weight(weight.contiguous())
        with program.graph.inserting_before(dense):
            held = program.hold(packed, f"{dense.target}_packed", like=weight)
        for linear in linears:
            linear.node.replace_input_with(dense, held)
        let_go(program, dense, packed.to_dense)
        program.packed += 1
    program.sweep()


def let_go(program: Program, dense: Node, unpack: Callable[[], torch.Tensor]) -> None:
    """Forget a dense weight and what it was joined of, if nothing else uses them.

    Args:
        program: the graph.
        dense: the weight.
        unpack: makes it anew of its packed form.
    """
    parts = program.joined.pop(dense, [dense])
    weights = [program.held(part) for part in parts]
    program.drop(dense)
    start = 0
    for part, weight in zip(parts, weights):
        rows = slice(start, start + len(weight))
        start = rows.stop
        if program.drop(part) and program.release is not None:
            restore = functools.partial(_part, unpack, rows)
            program.released += program.release(weight, restore)


def _part(unpack: Callable[[], torch.Tensor], rows: slice) -> torch.Tensor:
    whole = unpack()
    part = whole[rows]
    return part if len(part) == len(whole) else part.clone()
