"""Pass: batch normalization into the convolution before it."""

import operator

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, is_call
from cpuaccel_plugins.onednn.conv.convs import Conv

_NO_TRAINING = aten._native_batch_norm_legit_no_training.default
"""What batch norm is called in a graph that had operators in place; gives a tuple."""


def fold_batch_norm(program: Program) -> None:
    """Scale the weights of a convolution by the batch norm that alone uses its result.

    With running mean m, variance v, scale g and shift s, ``(conv(x) - m) g / sqrt(v + e) + s`` is
    a convolution with weights ``w g / sqrt(v + e)`` and bias ``(b - m) g / sqrt(v + e) + s``
    (computed in float64, once).
    """
    for norm in program.calls(aten.batch_norm.default, _NO_TRAINING):
        conv = Conv.of(program, norm.args[0])
        scale, shift, mean, variance = (_double(program, operand) for operand in norm.args[1:5])
        training = is_call(norm, aten.batch_norm.default) and norm.args[5]
        result = _result(norm)
        if conv is None or len(conv.node.users) > 1 or training or result is None:
            continue
        if mean is None or variance is None:  # it normalizes by the batch itself
            continue
        epsilon = norm.args[7 if is_call(norm, aten.batch_norm.default) else 6]
        assert isinstance(epsilon, float)
        weight = program.held(conv.weight)
        factor = (variance + epsilon).rsqrt() * (1 if scale is None else scale)
        bias = _double(program, conv.bias)
        moved = ((0 if bias is None else bias) - mean) * factor + (0 if shift is None else shift)
        scaled = weight.double().mul_(factor.view(-1, *[1] * (weight.dim() - 1)))
        with program.graph.inserting_before(conv.node):
            new_weight = program.hold(scaled.to(weight.dtype), f"{conv.weight.target}_folded")
            new_bias = program.hold(moved.to(weight.dtype), f"{conv.weight.target}_shift")
        conv.node.args = (conv.input, new_weight, new_bias, *conv.node.args[3:])
        program.replace(result, conv.node)
        program.sweep()
        program.fusions["conv+bn"] += 1


def _result(norm: Node) -> Node | None:
    """The node of the normalized tensor; None where the statistics are used, too."""
    if is_call(norm, aten.batch_norm.default):
        return norm
    users = list(norm.users)
    alone = len(users) == 1 and is_call(users[0], operator.getitem) and users[0].args[1] == 0
    return users[0] if alone else None


def _double(program: Program, node: object) -> torch.Tensor | None:
    held = program.constant(node) if isinstance(node, Node) else None
    return None if held is None else held.double()
