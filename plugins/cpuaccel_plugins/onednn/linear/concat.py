"""Pass: linears of the same input, such as query, key and value, become one."""

import operator
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, call, is_call, value
from cpuaccel_plugins.aten_graph.program import Pass, Program
from cpuaccel_plugins.common.fusions import CONCAT_LINEAR
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter

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
    groups: dict[tuple[Node, torch.dtype, bool], dict[Node, Linear]] = defaultdict(dict)
    for node in program.calls(aten.linear.default):
        linear = Linear.from_stock(program, node)
        if linear is None or not all(is_call(user, *_VIEWS) for user in node.users):
            continue
        if accepts(program, linear):
            weight = program.tensor(linear.weight)
            groups[(linear.input, weight.dtype, linear.bias is None)][node] = linear
    for linears in groups.values():
        if len(linears) > 1:
            _concat(program, linears)
            pack(program)
            program.fusions[CONCAT_LINEAR] += 1


def _concat(program: Program, linears: Mapping[Node, Linear]) -> None:
    node, first = next(iter(linears.items()))
    weights = [program.tensor(linear.weight) for linear in linears.values()]
    fake = value(node)
    assert fake is not None
    sizes = [len(weight) for weight in weights]
    with program.graph.inserting_before(node):
        weight = program.add_tensor(torch.cat(weights), f"{first.weight.target}_joint")
        bias = None
        if first.bias is not None:
            biases = [program.tensor(linear.bias) for linear in linears.values()]
            bias = program.add_tensor(torch.cat(biases), f"{first.bias.target}_joint")
        whole = Linear(first.input, weight, bias).add_call(program)
        whole.meta["val"] = fake.new_empty((*fake.shape[:-1], sum(sizes)))
        parts = call(program.graph, aten.split_with_sizes.default, whole, sizes, -1)
        members = [call(program.graph, operator.getitem, parts, i) for i in range(len(sizes))]
    for part, member in zip(linears, members):
        program.replace(part, member)
    program.concatenated[weight] = [linear.weight for linear in linears.values()]
