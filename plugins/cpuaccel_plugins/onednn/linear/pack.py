"""Pass: weights of linears into MKL's packed layout where that is faster, else into oneDNN's."""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.memory import trim_heap
from cpuaccel_plugins.aten_graph.nodes import aten, call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.nodes import FUSED_ADD, FUSED_UNARY, Linear, LinearFilter
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION, mkldnn


def pack_linears(program: Program, prefers_mkl: LinearFilter) -> None:
    """Pack the weights of fused linears, for MKL if it is faster for all that share the weight.

    ``fused_unary(x, dense, b, activation)`` -> ``fused_unary(x, packed, b, activation)`` or
    ``activation(mkl.linear(x, packed, shape, b))``. Dense weights are released at once, and so are
    the model's own if it gave them up.
    """
    by_weight: dict[Node, list[Node]] = defaultdict(list)
    for node in program.calls(FUSED_UNARY, FUSED_ADD):
        by_weight[Linear.from_fused(node).weight].append(node)
    for dense, nodes in by_weight.items():
        weight = program.tensor(dense)
        if weight.is_mkldnn:
            continue
        by_mkl = (
            weight.dtype is torch.float32
            and all(prefers_mkl(program, Linear.from_fused(node)) for node in nodes)
            # MKL gives back only finite weights.
            and (program.release is None or bool(weight.isfinite().all()))
        )
        unpack = (_pack_for_mkl if by_mkl else _pack_for_onednn)(program, dense, nodes)
        release_weight(program, dense, unpack)
        program.packed_weights += 1
    program.sweep()
    trim_heap()


def _pack_for_onednn(
    program: Program, dense: Node, nodes: Sequence[Node]
) -> Callable[[], torch.Tensor]:
    weight = program.tensor(dense)
    packed: torch.Tensor = mkldnn._reorder_linear_weight(weight.contiguous())
    with program.graph.inserting_before(dense):
        node = program.add_tensor(packed, f"{dense.target}_packed", like=weight)
    for fused in nodes:
        fused.replace_input_with(dense, node)
    return packed.to_dense


def _pack_for_mkl(
    program: Program, dense: Node, nodes: Sequence[Node]
) -> Callable[[], torch.Tensor]:
    weight = program.tensor(dense)
    packed, shape = mkl.pack(weight.contiguous()), mkl.shape_of(weight)
    with program.graph.inserting_before(dense):
        packed_node = program.add_tensor(packed, f"{dense.target}_mkl", like=weight)
        shape_node = program.add_tensor(shape, f"{dense.target}_shape")
    for fused in nodes:
        _replace_by_mkl(program, fused, packed_node, shape_node)
    return functools.partial(mkl.unpack, packed, shape)


def _replace_by_mkl(program: Program, node: Node, packed: Node, shape: Node) -> None:
    """Replace a fused linear by MKL's, and what was fused with it by stock operators."""
    linear, graph = Linear.from_fused(node), program.graph
    with graph.inserting_before(node):
        new = call(graph, mkl.linear, linear.input, packed, shape, linear.bias)
        new.meta["val"] = node.meta["val"]
        if linear.other is not None:
            new = call(graph, aten.add.Tensor, new, linear.other)
            program.fusions["linear+add"] -= 1
        elif linear.activation != NO_ACTIVATION:
            new = linear.activation.add_call(program, new)
            program.fusions[f"linear+{linear.activation.label}"] -= 1
    program.replace(node, new)


def release_weight(program: Program, dense: Node, unpack: Callable[[], torch.Tensor]) -> None:
    """Release a dense weight, and those it was concatenated from, if nothing else uses them."""
    parts = program.concatenated.pop(dense, [dense])
    weights = [program.tensor(part) for part in parts]
    program.remove_if_unused(dense)
    start = 0
    for part, weight in zip(parts, weights):
        rows = slice(start, start + len(weight))
        start = rows.stop
        if program.remove_if_unused(part) and program.release is not None:
            restore = functools.partial(_unpack_rows, unpack, rows)
            program.released_weights += program.release(weight, restore)


def _unpack_rows(unpack: Callable[[], torch.Tensor], rows: slice) -> torch.Tensor:
    whole = unpack()
    part = whole[rows]
    return part if len(part) == len(whole) else part.clone()
