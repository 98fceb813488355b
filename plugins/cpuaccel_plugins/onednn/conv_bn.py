"""Pass: batch normalization into the convolution before it."""

import torch
from torch.fx import Node

from .convs import Conv
from .program import Program, aten


def fold_batch_norm(program: Program) -> None:
    """Scale the weights of a convolution by the batch norm that alone uses its result.

    With running mean m, variance v, scale g and shift s, ``(conv(x) - m) g / sqrt(v + e) + s`` is
    a convolution with weights ``w g / sqrt(v + e)`` and bias ``(b - m) g / sqrt(v + e) + s``
    (computed in float64, once).
    """
    for node in program.calls(aten.batch_norm.default):
        conv = Conv.of(program, node.args[0])
        scale, shift, mean, variance = (_double(program, operand) for operand in node.args[1:5])
        training, epsilon = node.args[5], node.args[7]
        if conv is None or len(conv.node.users) > 1 or training or mean is None or variance is None:
            continue
        assert isinstance(epsilon, float)
        weight = program.constant(conv.weight)
        assert weight is not None
        factor = (variance + epsilon).rsqrt() * (1 if scale is None else scale)
        bias = _double(program, conv.bias)
        moved = ((0 if bias is None else bias) - mean) * factor + (0 if shift is None else shift)
        scaled = weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))
        with program.graph.inserting_before(conv.node):
            new_weight = program.hold(scaled.to(weight.dtype), f"{conv.weight.target}_folded")
            new_bias = program.hold(moved.to(weight.dtype), f"{conv.weight.target}_shift")
        conv.node.args = (conv.input, new_weight, new_bias, *conv.node.args[3:])
        program.replace(node, conv.node)
        program.sweep()
        program.fusions["conv+bn"] += 1


def _double(program: Program, node: object) -> torch.Tensor | None:
    held = program.constant(node) if isinstance(node, Node) else None
    return None if held is None else held.double()
