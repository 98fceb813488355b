"""Attention at call time, in the way that was measured fastest."""

import bisect
import itertools
import operator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

from cpuaccel_plugins.onednn.attention.graph import Kind, kernels
from cpuaccel_plugins.onednn.attention.masks import Mask, Span
from cpuaccel_plugins.onednn.attention.precision import fast_products
from cpuaccel_plugins.onednn.attention.workspace import Sizes, Workspace, workspace

Operands: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values, each of shape (batch, heads, tokens, head size); or where they come of
one joint linear its result, shape (batch, tokens, 3, heads, head size)."""

_AS_IT_IS = nullcontext()


Way: TypeAlias = Literal["stock", "products", "graph"]
"""The stock operator; matrix products and a softmax; or these in one piece, by oneDNN's graph API,
where sizes come up often enough to be compiled for, and else as products."""


@dataclass(frozen=True)
class Ways:
    """Which way of attending was measured fastest for which lengths.

    Attributes:
        lengths: lengths measured, ascending.
        fastest: for each.
    """

    lengths: tuple[int, ...]
    fastest: tuple[Way, ...]

    def at(self, length: int) -> Way:
        """The way for so many tokens: as at the nearest length measured."""
        index = bisect.bisect(self.lengths, length)
        if index == len(self.lengths):
            return self.fastest[-1]
        if index and length - self.lengths[index - 1] <= self.lengths[index] - length:
            index -= 1
        return self.fastest[index]

    def __str__(self) -> str:
        if len(self.lengths) == 1:
            return self.fastest[0]
        alike = itertools.groupby(zip(self.lengths, self.fastest), operator.itemgetter(1))
        parts = [f"{way} at {', '.join(str(length) for length, _ in own)}" for way, own in alike]
        return f"{'; '.join(parts)} tokens"


PRODUCTS = Ways((1,), ("products",))
"""Products for every length."""

GRAPH = Ways((1,), ("graph",))
"""One piece for every length, as far as it can be had."""


def attend(operands: Operands, mask: Mask | None, scale: float, ways: Ways) -> torch.Tensor:
    """Attend, row by row of the batch.

    Args:
        operands: any strides.
        mask: what ``read_mask`` made.
        scale: factor on the scores.
        ways: how to do it.

    Returns:
        Shape (batch, queries, heads x head size), as the linear that follows wants it.
    """
    if isinstance(operands, torch.Tensor):
        batch, queries, _, heads, size = operands.shape
        keys, dtype = queries, operands.dtype
    else:
        batch, heads, queries, size = operands[0].shape
        keys, dtype = operands[1].shape[2], operands[0].dtype
    way = ways.at(keys)
    if way == "stock":
        return by_stock(operands, None, None if mask is None else mask.given, scale)
    if way == "graph" and mask is None:
        whole = by_graph(operands, scale)
        if whole is not None:
            return whole
    out = torch.empty(batch, queries, heads * size, dtype=dtype)
    spans = None if mask is None else mask.spans
    added = None if mask is None else mask.added
    for row in range(batch):
        space = load(
            operands if batch == 1 else rows(operands, row, row + 1),
            None if spans is None else spans[row if len(spans) > 1 else 0],
        )
        bias = None if added is None else added[row if len(added) > 1 else 0]
        attend_row(space, bias, scale, out, row * queries)
    if mask is not None and mask.idle is not None:
        out.view(batch, queries, heads, size).masked_fill_(mask.idle.transpose(1, 2), 0)
    return out


def by_stock(
    operands: Operands, span: Span | None, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Attend by the stock operator, to the keys of a span or to all."""
    query, key, value = apart(operands, span)
    found = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return found.transpose(1, 2).flatten(2)


def by_graph(operands: Operands, scale: float) -> torch.Tensor | None:
    """Attend in one piece to all tokens, where that can be done."""
    if not isinstance(operands, torch.Tensor):
        return None
    batch, tokens, _, heads, size = operands.shape
    width = heads * size
    # is_contiguous() does not look at the stride of a single row, but what was compiled does.
    if operands.stride() != (3 * tokens * width, 3 * width, width, size, 1):
        return None
    threads = torch.get_num_threads()
    kernel = kernels.of(Kind(batch, tokens, heads, size, operands.dtype, scale, threads))
    return None if kernel is None else kernel(operands)


def apart(operands: Operands, span: Span | None = None) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values, each of shape (batch, heads, tokens, head size).

    Args:
        operands: any.
        span: the keys and values that are wanted; None for all.
    """
    if isinstance(operands, torch.Tensor):
        query, key, value = operands.permute(2, 0, 3, 1, 4).unbind(0)
    else:
        query, key, value = operands
    if span is None:
        return query, key, value
    first, last = span
    return query, key[:, :, first:last], value[:, :, first:last]


def rows(operands: Operands, begin: int, end: int) -> Operands:
    """Those of some rows of the batch."""
    if isinstance(operands, torch.Tensor):
        return operands[begin:end]
    query, key, value = operands
    return query[begin:end], key[begin:end], value[begin:end]


def cut(operands: Operands, begin: int, end: int) -> Operands:
    """Those of some tokens of a single row."""
    if isinstance(operands, torch.Tensor):
        # Not [:, begin:end]: strides are to be those of a tensor of this size, as compiled for.
        return operands[0, begin:end].unsqueeze(0)
    query, key, value = operands
    return query[:, :, begin:end], key[:, :, begin:end], value[:, :, begin:end]


def load(operands: Operands, span: Span | None) -> Workspace:
    """Copy a single row's operands together into this thread's memory.

    Args:
        operands: of a batch of one.
        span: the keys that are attended to; None for all.
    """
    if span is None and isinstance(operands, torch.Tensor):
        _, length, _, heads, size = operands.shape
        space = workspace(Sizes(heads, length, length, size, operands.dtype))
        space.fill_jointly(operands)
        return space
    query, key, value = apart(operands, span)
    _, heads, queries, size = query.shape
    space = workspace(Sizes(heads, queries, key.shape[2], size, query.dtype))
    space.fill(query, key, value)
    return space


def attend_row(
    space: Workspace, bias: torch.Tensor | None, scale: float, out: torch.Tensor, first: int
) -> None:
    """Attend within one sequence.

    Args:
        space: holds its operands.
        bias: added to the scores, broadcast to (heads, queries, keys).
        scale: factor on the scores.
        out: shape (batch, tokens, heads x head size), contiguous; is written.
        first: where the sequence's result begins there, in tokens of all the batch.
    """
    heads, queries, _, size, dtype = space.sizes
    width = heads * size
    own = out.as_strided((heads, queries, size), (size, width, 1), first * width)
    with fast_products() if dtype is torch.float32 else _AS_IT_IS:
        for part in space.parts:
            scores = part.scores
            torch.baddbmm(scores, part.query, part.transposed_key, beta=0, alpha=scale, out=scores)
            if bias is not None:
                scores += bias if len(bias) == 1 else bias[part.heads]
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, part.value, out=own if part.whole else own[part.heads])
