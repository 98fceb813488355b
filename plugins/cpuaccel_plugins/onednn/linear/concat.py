"""Pass: linears of the same input, such as query, key and value, become one."""

import operator
from collections import defaultdict

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, call, is_call, value
from cpuaccel_plugins.aten_graph.program import Pass, Program
from cpuaccel_plugins.common.fusions import CONCAT_LINEAR
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter, replace_by_unary
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION

_VIEWS = (
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.split.Tensor,
    aten.chunk.default,
)
"""Users that take part of the joint result as a view, without a contiguous copy."""


def concat_linears(program: Program, accepts: LinearFilter, pack: Pass) -> None:
    """Rewrite ``linear(x, w1), linear(x, w2)`` -> ``split(linear(x, cat([w1, w2])))``.

    Not if an operator computes with a result directly: it would read a wider result in pieces, and
    an activation or addition is better fused. ``pack`` runs after each concatenation, so that only
    one concatenated weight at a time takes memory beside its parts.
    """
    groups: dict[tuple[Node, torch.dtype | None, bool], list[Linear]] = defaultdict(list)
    for node in program.calls(aten.linear.default):
        linear = Linear.from_node(program, node)
        if linear is None or not accepts(program, linear):
            continue
        if all(is_call(user, *_VIEWS) for user in node.users):
            weight = program.tensor(linear.weight)
            groups[(linear.input, weight.dtype, linear.bias is None)].append(linear)
    for linears in groups.values():
        if len(linears) > 1:
            _concat(program, linears)
            pack(program)
            program.fusions[CONCAT_LINEAR] += 1


def _concat(program: Program, linears: list[Linear]) -> None:
    first = linears[0]
    weights = [program.tensor(linear.weight) for linear in linears]
    fake = value(first.node)
    assert fake is not None
    sizes = [len(weight) for weight in weights]
    with program.graph.inserting_before(first.node):
        weight = program.add_tensor(torch.cat(weights), f"{first.weight.target}_joint")
        bias = None
        if first.bias is not None:
            biases = [program.tensor(linear.bias) for linear in linears]
            bias = program.add_tensor(torch.cat(biases), f"{first.bias.target}_joint")
        whole = call(program.graph, aten.linear.default, first.input, weight, bias)
        whole.meta["val"] = fake.new_empty((*fake.shape[:-1], sum(sizes)))
        parts = call(program.graph, aten.split_with_sizes.default, whole, sizes, -1)
        members = [call(program.graph, operator.getitem, parts, i) for i in range(len(sizes))]
    for linear, member in zip(linears, members):
        program.replace(linear.node, member)
    joint = Linear.from_node(program, whole)
    assert joint is not None
    replace_by_unary(program, joint, whole, NO_ACTIVATION)
    program.concatenated[weight] = [linear.weight for linear in linears]
