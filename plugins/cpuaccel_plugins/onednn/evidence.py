"""What was fused, what was left and why, and how much of the work runs fused."""

from collections.abc import Collection
from math import prod

from torch.fx import Node

from cpuaccel import Evidence
from cpuaccel_plugins.aten_graph.program import Program, aten, hint, value
from cpuaccel_plugins.onednn.attention.attend import attend
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.linears import mkldnn
from cpuaccel_plugins.onednn.packed import attend_packed

_FUSED: dict[object, int] = {
    mkldnn._linear_pointwise.default: 1,
    mkldnn._linear_pointwise.binary: 2,
    mkldnn._convolution_pointwise.default: 1,
    mkldnn._convolution_pointwise.binary: 2,
    mkl.multiply: 1,
}
_STOCK: dict[object, int] = {
    aten.linear.default: 1,
    aten.conv1d.default: 1,
    aten.conv2d.default: 1,
    aten.conv3d.default: 1,
}
_ATTENTION = (attend, attend_packed)
_PRODUCTS = (aten.mm.default, aten.bmm.default, aten.matmul.default, aten.addmm.default)


def evidence(program: Program, padding: str) -> Evidence:
    """Describe what became of a program.

    Args:
        program: after all passes.
        padding: why padding is not left out though it was asked for; empty where it is.

    Returns:
        How many fusions there are in all and of each kind, in the names that ``jit`` uses for
        IPEX's; weights packed, and how much of them is in huge pages; linears that MKL computes;
        the ways of attending, by length; what was left; and which share of the floating-point
        operations of matrix products, convolutions and attention, at the example's size, runs fused
        or packed.
    """
    by_mkl = len(list(program.calls(mkl.multiply)))
    fused = share(program, {*_FUSED, *_ATTENTION, *program.operators})
    ways = sorted({str(node.args[-1]) for node in program.calls(*_ATTENTION)})
    left = "; ".join(f"{count} {reason}" for reason, count in sorted(program.left.items()))
    return {
        "fusions": program.fusions.total(),
        **{kind: count for kind, count in sorted(program.fusions.items()) if count},
        "packed_weights": program.packed,
        **({"huge_pages": f"{program.huge // 2**20} MiB"} if program.huge else {}),
        **({"linears_by_mkl": by_mkl} if by_mkl else {}),
        **({"released_weights": program.released} if program.released else {}),
        **({"attention": "; ".join(ways)} if ways else {}),
        "share_of_flops_fused": f"{fused:.1%}",
        **({"left_alone": left} if left else {}),
        **({"padding_computed": padding} if padding else {}),
    }


def share(program: Program, targets: Collection[object]) -> float:
    """Which share of the floating-point operations these calls have, of 1."""
    work = [(node.target in targets, _operations(program, node)) for node in program.graph.nodes]
    return sum(n for chosen, n in work if chosen) / max(1, sum(n for _, n in work))


def _operations(program: Program, node: Node) -> int:
    """Floating-point operations of a node, of those kinds that weigh."""
    result = value(node)
    if node.op != "call_function" or result is None:
        return 0
    size = prod(map(hint, result.shape))
    known = _STOCK | _FUSED | program.operators
    weight_at = known.get(node.target)
    if weight_at is not None:
        weight = value(node.args[weight_at])
        return 0 if weight is None else 2 * size * prod(map(hint, weight.shape[1:]))
    if node.target is aten.scaled_dot_product_attention.default:
        return 4 * size * _tokens(node.args[1])
    if node.target in _ATTENTION:
        operands = node.args[0]
        if isinstance(operands, tuple):
            return 4 * size * _tokens(operands[1])
        return 4 * size * _tokens(operands, 1)
    if node.target in _PRODUCTS:
        first = value(node.args[1 if node.target is aten.addmm.default else 0])
        return 0 if first is None else 2 * size * hint(first.shape[-1])
    return 0


def _tokens(operand: object, axis: int = 2) -> int:
    """How many tokens keys have, or a joint operand on another axis."""
    found = value(operand)
    return 0 if found is None else hint(found.shape[axis])
