"""Evidence: what was fused, what was left alone and why, and which share of the work is fused."""

from collections.abc import Collection
from math import prod

from torch.fx import Node

from cpuaccel import Evidence
from cpuaccel_plugins.aten_graph.nodes import aten, example_shape, value
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.attention.attend import attend
from cpuaccel_plugins.onednn.attention.packed import attend_packed
from cpuaccel_plugins.onednn.conv import nodes as conv
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear import nodes as linear

_FUSED: dict[object, int] = {
    linear.FUSED_UNARY: 1,
    linear.FUSED_ADD: 2,
    conv.FUSED_UNARY: 1,
    conv.FUSED_ADD: 2,
    mkl.linear: 1,
}
"""Index of the weight among an operator's arguments."""

_STOCK: dict[object, int] = {
    aten.linear.default: 1,
    aten.conv1d.default: 1,
    aten.conv2d.default: 1,
    aten.conv3d.default: 1,
}
_ATTENTION = (attend, attend_packed)
_PRODUCTS = (aten.mm.default, aten.bmm.default, aten.matmul.default, aten.addmm.default)


def evidence(program: Program) -> Evidence:
    """Describe a program after all passes; ``jit`` uses the same names for IPEX's fusions.

    The share of floating-point operations is that of matrix products, convolutions and attention,
    at the example's size. Other facts that are empty or 0 are left out.
    """
    fused = share_of_flops(program, {*_FUSED, *_ATTENTION, *program.linear_operators})
    methods = sorted({str(node.args[-1]) for node in program.calls(*_ATTENTION)})
    left = (f"{count} {reason}" for reason, count in sorted(program.left_alone.items()))
    mebibytes = program.huge_page_bytes // 2**20
    facts = {
        **program.evidence,
        "fusions": program.fusions.total(),
        **dict(sorted(program.fusions.items())),
        "packed_weights": program.packed_weights,
        "huge_pages": f"{mebibytes} MiB" if mebibytes else "",
        "linears_by_mkl": len(list(program.calls(mkl.linear))),
        "released_weights": program.released_weights,
        "attention": "; ".join(methods),
        "share_of_flops_fused": f"{fused:.1%}",
        "left_alone": "; ".join(left),
        "padding_computed": program.padding_computed or "",
    }
    return {n: fact for n, fact in facts.items() if fact or n in ("fusions", "packed_weights")}


def share_of_flops(program: Program, targets: Collection[object]) -> float:
    """The share of floating-point operations in calls of these functions, from 0 to 1."""
    flops = [(node.target in targets, _flops(program, node)) for node in program.graph.nodes]
    return sum(n for counts, n in flops if counts) / max(1, sum(n for _, n in flops))


def _flops(program: Program, node: Node) -> int:
    if node.op != "call_function" or value(node) is None:
        return 0
    size = prod(example_shape(node))
    weight_index = (_STOCK | _FUSED | program.linear_operators).get(node.target)
    if weight_index is not None:
        return 2 * size * prod(example_shape(node.args[weight_index])[1:])
    if node.target is aten.scaled_dot_product_attention.default:
        return 4 * size * example_shape(node.args[1])[2]
    if node.target in _ATTENTION:
        operands = node.args[0]
        if isinstance(operands, tuple):
            return 4 * size * example_shape(operands[1])[2]
        return 4 * size * example_shape(operands)[1]
    if node.target in _PRODUCTS:
        first = node.args[1 if node.target is aten.addmm.default else 0]
        return 2 * size * example_shape(first)[-1]
    return 0
