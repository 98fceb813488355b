"""Pass: scaled dot product attention by the fastest method, with masks read once a call."""

import math
from collections.abc import Callable

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import (
    argument,
    aten,
    call,
    is_call,
    same_shape,
    same_size,
    value,
)
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.fusions import ATTENTION
from cpuaccel_plugins.onednn.attention.attend import attend
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.masks import read_mask
from cpuaccel_plugins.onednn.operators import DTYPES


def fuse_attention(program: Program, choice: AttentionChoice) -> None:
    """Replace attention that is neither causal nor has dropout; layers share a ``read_mask``.

    ``scaled_dot_product_attention(q, k, v, mask)`` -> ``attend((q, k, v), read_mask(mask), ...)``.
    """
    masks: dict[tuple[Node, torch.dtype], Node] = {}
    for node in program.calls(aten.scaled_dot_product_attention.default):
        query = value(node.args[0])
        if query is None or not is_supported(node):
            continue
        mask = argument(node, "attn_mask")
        if mask is not None:
            assert isinstance(mask, Node)
            key = mask, query.dtype
            if key not in masks:
                with program.graph.inserting_after(mask):
                    masks[key] = call(program.graph, read_mask, mask, query.dtype)
            mask = masks[key]
        replace_attention(program, node, choice, attend, mask)
    program.sweep()


def replace_attention(
    program: Program,
    node: Node,
    choice: AttentionChoice,
    function: Callable[..., torch.Tensor],
    *masks: Node | None,
) -> None:
    """Replace the operator by ``function``, which returns shape (batch, tokens, heads x head size).

    The linear after attention reads that as it is; other users read two views of it.
    """
    query, result = value(node.args[0]), value(node)
    assert query is not None
    assert result is not None
    scale = argument(node, "scale")
    if scale is None:
        scale = 1 / math.sqrt(query.shape[3])
    operands, methods = tuple(node.args[:3]), choice.method_by_length(query)
    with program.graph.inserting_before(node):
        new = call(program.graph, function, operands, *masks, scale, methods)
    batch, heads, tokens, size = result.shape
    new.meta["val"] = result.new_empty(batch, tokens, heads * size)
    with program.graph.inserting_after(new):
        heads_apart = call(program.graph, aten.unflatten.int, new, -1, [-1, size])
    heads_apart.meta["val"] = result.transpose(1, 2)
    for user in list(node.users):
        if is_call(user, aten.transpose.int) and user.args[1:] == (1, 2):
            for reshape in list(user.users):
                if is_call(reshape, aten.reshape.default) and same_shape(reshape, new):
                    program.replace(reshape, new)
            program.replace(user, heads_apart)
    with program.graph.inserting_after(heads_apart):
        program.replace(node, call(program.graph, aten.transpose.int, heads_apart, 1, 2))
    program.fusions[ATTENTION] += 1


def is_supported(node: Node) -> bool:
    """Whether ``attend`` computes the same as a call of the operator."""
    query, key, values = (value(operand) for operand in node.args[:3])
    if query is None or key is None or values is None:
        return False
    mask = argument(node, "attn_mask")
    return (
        query.dim() == key.dim() == values.dim() == 4
        and query.dtype in DTYPES
        and query.dtype == key.dtype == values.dtype
        and argument(node, "dropout_p") == 0
        and not argument(node, "is_causal")
        and not argument(node, "enable_gqa")
        and isinstance(argument(node, "scale"), (int, float, type(None)))
        and isinstance(query.shape[3], int)
        and same_size(query.shape[1], key.shape[1])
        and same_shape(node.args[1], node.args[2])
        and (mask is None or _is_supported_mask(mask, query.dtype))
    )


def _is_supported_mask(mask: object, scores: torch.dtype) -> bool:
    fake = value(mask)
    return fake is not None and fake.dim() == 4 and fake.dtype in (torch.bool, scores)
