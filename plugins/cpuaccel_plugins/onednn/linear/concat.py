"""Pass: linears of the same input, such as query, key and value, become one."""

import operator
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, call, is_call, value
from cpuaccel_plugins.common.fusions import CONCAT_LINEAR
from cpuaccel_plugins.onednn.linear.choice import Takes
from cpuaccel_plugins.onednn.linear.linears import Linear, fused_unary

_READS_STRIDED = (
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.split.Tensor,
    aten.chunk.default,
)
"""Users that take a part of the joint result for what it is: a view, not a contiguous tensor."""


def concat_linears(program: Program, choice: Takes, pack: Callable[[Program], None]) -> None:
    """Join linears of one input, whose weights are then held once, joint, and packed at once.

    Not linears whose results are computed with directly: an operator over a part of a wider
    result reads memory in pieces, and an activation or addition is better fused.
    """
    groups: dict[tuple[Node, torch.dtype | None, bool], list[Linear]] = defaultdict(list)
    for node in program.calls(aten.linear.default):
        linear = Linear.of(program, node)
        if linear is None or not choice.takes(program, linear):
            continue
        if all(is_call(user, *_READS_STRIDED) for user in node.users):
            weight = program.held(linear.weight)
            groups[(linear.input, weight.dtype, linear.bias is None)].append(linear)
    for linears in groups.values():
        if len(linears) > 1:
            _join(program, linears)
            pack(program)  # at once, so that only one joint weight at a time is held dense, too
            program.fusions[CONCAT_LINEAR] += 1


def _join(program: Program, linears: list[Linear]) -> None:
    first = linears[0]
    weights = [program.held(linear.weight) for linear in linears]
    joint = value(first.node)
    assert joint is not None
    sizes = [len(weight) for weight in weights]
    with program.graph.inserting_before(first.node):
        weight = program.hold(torch.cat(weights), f"{first.weight.target}_joint")
        bias = None
        if first.bias is not None:
            biases = [program.held(linear.bias) for linear in linears]
            bias = program.hold(torch.cat(biases), f"{first.bias.target}_joint")
        whole = call(program.graph, aten.linear.default, first.input, weight, bias)
        whole.meta["val"] = joint.new_empty((*joint.shape[:-1], sum(sizes)))
        parts = call(program.graph, aten.split_with_sizes.default, whole, sizes, -1)
        members = [call(program.graph, operator.getitem, parts, i) for i in range(len(sizes))]
    for linear, member in zip(linears, members):
        program.replace(linear.node, member)
    joint_linear = Linear.of(program, whole)
    assert joint_linear is not None
    fused_unary(program, joint_linear, whole, "none")
    program.joined[weight] = [linear.weight for linear in linears]
