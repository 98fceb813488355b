"""Pass: scaled dot product attention to the faster of two ways, with masks read once a call."""

import math

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import (
    Program,
    argument,
    aten,
    call,
    dtype,
    hint,
    is_call,
    same_shape,
    same_size,
    value,
)
from cpuaccel_plugins.common.fusions import ATTENTION
from cpuaccel_plugins.onednn.attention.attend import attend
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.masks import read_mask
from cpuaccel_plugins.onednn.linear.linears import DTYPES


def fuse_attention(program: Program, choice: AttentionChoice) -> None:
    """Replace the attention operator where it is an encoder's: neither causal nor with dropout.

    Every mask is read once in a call, before the first layer that uses it.
    """
    masks: dict[tuple[Node, torch.dtype], Node] = {}
    for node in program.calls(aten.scaled_dot_product_attention.default):
        query = value(node.args[0])
        if query is None or not serves(node):
            continue
        mask = argument(node, 3, "attn_mask")
        if mask is not None:
            assert isinstance(mask, Node)
            known = masks.get((mask, query.dtype))
            if known is None:
                with program.graph.inserting_after(mask):
                    known = call(program.graph, read_mask, mask, query.dtype)
                masks[(mask, query.dtype)] = known
            mask = known
        scale = scale_of(node, query)
        with program.graph.inserting_before(node):
            new = call(program.graph, attend, tuple(node.args[:3]), mask, scale, choice.of(query))
        take_place(program, node, new)
    program.sweep()


def take_place(program: Program, node: Node, new: Node) -> None:
    """Let a call that returns (batch, tokens, heads x head size) stand for the operator.

    That is what the linear after it takes; two views are made of it where something else is taken.
    """
    result = value(node)
    assert result is not None
    batch, heads, tokens, size = result.shape
    new.meta["val"] = result.new_empty(batch, tokens, heads * size)
    with program.graph.inserting_after(new):
        cut = call(program.graph, aten.unflatten.int, new, -1, [-1, size])
    cut.meta["val"] = result.transpose(1, 2)
    for user in list(node.users):
        if is_call(user, aten.transpose.int) and user.args[1:] == (1, 2):
            for taker in list(user.users):
                if is_call(taker, aten.reshape.default) and same_shape(taker, new):
                    program.replace(taker, new)
            program.replace(user, cut)
    with program.graph.inserting_after(cut):
        program.replace(node, call(program.graph, aten.transpose.int, cut, 1, 2))
    program.fusions[ATTENTION] += 1


def scale_of(node: Node, query: torch.Tensor) -> object:
    """The factor on the scores: one over the root of the head size where none is given."""
    scale = argument(node, 6, "scale")
    return 1 / math.sqrt(hint(query.shape[3])) if scale is None else scale


def serves(node: Node) -> bool:
    """Whether a call of the operator is one that ``attend`` can stand for."""
    query, key, held = (value(operand) for operand in node.args[:3])
    if query is None or key is None or held is None:
        return False
    mask = argument(node, 3, "attn_mask")
    return (
        query.dim() == key.dim() == held.dim() == 4
        and query.dtype in DTYPES
        and query.dtype == key.dtype == held.dtype
        and argument(node, 4, "dropout_p", 0.0) == 0
        and not argument(node, 5, "is_causal", False)
        and not node.kwargs.get("enable_gqa", False)
        and isinstance(argument(node, 6, "scale", 1.0), (int, float, type(None)))
        and isinstance(query.shape[3], int)
        and same_size(query.shape[1], key.shape[1])
        and same_shape(node.args[1], node.args[2])
        and (mask is None or _serves_mask(mask, query.dtype))
    )


def _serves_mask(mask: object, scores: torch.dtype) -> bool:
    found = value(mask)
    return found is not None and found.dim() == 4 and dtype(mask) in (torch.bool, scores)
