"""The kind of a linear in a model, derived from the graph around it."""

import operator

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import SPLIT_OR_JOIN, aten, is_call, walk
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.outliers import WeightKey, weight_key
from cpuaccel_plugins.onednn.attention.attend import attend
from cpuaccel_plugins.onednn.attention.packed import attend_packed
from cpuaccel_plugins.onednn.operators import added_to, only_user

_ACTIVATIONS = (aten.gelu.default, aten.relu.default, aten.silu.default)
_ATTENTION = (
    attend,
    attend_packed,
    aten.scaled_dot_product_attention.default,
    aten.matmul.default,
    aten.bmm.default,
)
_BETWEEN = (
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.contiguous.default,
    aten.clone.default,
    *SPLIT_OR_JOIN,
    aten.neg.default,
    aten.mul.Tensor,
    aten.add.Tensor,
    operator.getitem,
)
"""Operators that may come between a linear and what defines its kind: views, gates, rotary
positions."""


def linear_kinds(program: Program) -> dict[Node, Kind]:
    """The kind of every linear in a graph in which no linear is fused yet."""
    linears = list(program.calls(aten.linear.default))
    inputs = [source for node in linears for source in node.all_input_nodes]
    feeding = walk(inputs, lambda node: node.all_input_nodes)
    return {
        node: _kind(node) if node in feeding or _continues_residual(node) else Kind.HEAD
        for node in linears
    }


def _continues_residual(node: Node) -> bool:
    """Whether the result is added to hidden states: the last layer's of a model without a head."""
    user = only_user(node)
    return user is not None and added_to(node, user) is not None


def _kind(node: Node) -> Kind:
    inputs = node.args[0]
    assert isinstance(inputs, Node)
    after = walk(node.users, lambda n: n.users if is_call(n, *_BETWEEN) else ())
    before = walk([inputs], lambda n: n.all_input_nodes if is_call(n, *_BETWEEN) else ())
    for targets, kind_before, kind_after in (
        (_ATTENTION, Kind.ATTENTION_IN, Kind.ATTENTION_OUT),
        (_ACTIVATIONS, Kind.FFN_IN, Kind.FFN_OUT),
    ):
        if any(is_call(n, *targets) for n in after):
            return kind_before
        if any(is_call(n, *targets) for n in before):
            return kind_after
    return Kind.OTHER


def module_names(model: torch.nn.Module) -> dict[WeightKey, tuple[str, ...]]:
    """The names of the modules that have a matrix as weight, by the weight."""
    names: dict[WeightKey, tuple[str, ...]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.dim() == 2:
            key = weight_key(parameter)
            names[key] = (*names.get(key, ()), name.removesuffix(".weight"))
    return names
