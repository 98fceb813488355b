"""Pass: fold batch normalization into the convolution before it."""

import operator

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import argument, aten, is_call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.conv.nodes import Conv

_BATCH_NORM = aten.batch_norm.default
_NO_TRAINING = aten._native_batch_norm_legit_no_training.default
"""Batch norm in a graph that had in-place operators; returns a tuple."""


def fold_batch_norm(program: Program) -> None:
    """Fold batch norm into the convolution before it, in float64.

    With running mean m, variance v, scale g, shift s and epsilon e:
    ``batch_norm(conv(x, w, b))`` -> ``conv(x, w f, (b - m) f + s)`` with ``f = g / sqrt(v + e)``.
    Not if anything else uses the convolution's result, or without running statistics.
    """
    for norm in program.calls(_BATCH_NORM, _NO_TRAINING):
        conv = Conv.from_node(program, norm.args[0])
        scale, shift, mean, variance = (_float64(program, operand) for operand in norm.args[1:5])
        training = is_call(norm, _BATCH_NORM) and argument(norm, "training")
        result = _result(norm)
        if conv is None or len(conv.node.users) > 1 or training or result is None:
            continue
        if mean is None or variance is None:  # it normalizes by the batch itself
            continue
        epsilon = argument(norm, "eps")
        assert isinstance(epsilon, float)
        weight = program.tensor(conv.weight)
        factor = (variance + epsilon).rsqrt() * (1 if scale is None else scale)
        bias = _float64(program, conv.bias)
        moved = ((0 if bias is None else bias) - mean) * factor + (0 if shift is None else shift)
        scaled = weight.double().mul_(factor.view(-1, *[1] * (weight.dim() - 1)))
        name = conv.weight.target
        with program.graph.inserting_before(conv.node):
            new_weight = program.add_tensor(scaled.to(weight.dtype), f"{name}_folded")
            new_bias = program.add_tensor(moved.to(weight.dtype), f"{name}_shift")
        conv.node.args = (conv.input, new_weight, new_bias, *conv.node.args[3:])
        program.replace(result, conv.node)
        program.sweep()
        program.fusions["conv+bn"] += 1


def _result(norm: Node) -> Node | None:
    """The node of the normalized tensor; None if the statistics are used, too."""
    if is_call(norm, _BATCH_NORM):
        return norm
    users = list(norm.users)
    alone = len(users) == 1 and is_call(users[0], operator.getitem) and users[0].args[1] == 0
    return users[0] if alone else None


def _float64(program: Program, node: object) -> torch.Tensor | None:
    tensor = program.constant(node)
    return None if tensor is None else tensor.double()
