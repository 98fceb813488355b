"""Attention at call time, through two matrix products and a softmax, or the stock operator."""

import bisect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

from .masks import Mask
from .precision import fast_products

SCORE_BYTES = 8 * 2**20
"""Scores computed at once at most: they are to stay in the processor's caches."""

Operands: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values; one tensor where they lie in one, stacked on a first axis: a single
copy brings a row's together."""

_AS_IT_IS = nullcontext()


@dataclass(frozen=True)
class Products:
    """For which lengths two matrix products and a softmax were measured faster.

    Attributes:
        lengths: lengths measured, ascending.
        faster: whether they were, for each.
    """

    lengths: tuple[int, ...]
    faster: tuple[bool, ...]

    def pay(self, length: int) -> bool:
        """Whether to use them for so many tokens: as at the nearest length measured."""
        index = bisect.bisect(self.lengths, length)
        if index == len(self.lengths):
            return self.faster[-1]
        if index and length - self.lengths[index - 1] <= self.lengths[index] - length:
            index -= 1
        return self.faster[index]


ALWAYS = Products((1,), (True,))
"""Matrix products for every length."""


def attend(operands: Operands, mask: Mask | None, scale: float, products: Products) -> torch.Tensor:
    """Attend, row by row of the batch, copying together only that row's operands.

    Args:
        operands: queries of shape (batch, heads, queries, head size), keys and values of shape
            (batch, heads, keys, head size); any strides.
        mask: what ``read_mask`` made.
        scale: factor on the scores.
        products: when to use matrix products.

    Returns:
        Shape (batch, heads, queries, head size), whose memory is in the order (batch, queries,
        heads, head size), as the layers that follow want it.
    """
    query, key, value = operands
    batch, heads, length, size = query.shape
    if not products.pay(key.shape[2]):
        given = None if mask is None else mask.given
        return scaled_dot_product_attention(query, key, value, given, scale=scale)
    out = query.new_empty(batch, length, heads, size).transpose(1, 2)
    spans = None if mask is None else mask.spans
    added = None if mask is None else mask.added
    for row in range(batch):
        if spans is None:
            queries, keys, values = copied(operands, row)
        else:
            first, last = spans[row if len(spans) > 1 else 0]
            queries = query[row].contiguous()
            keys = key[row, :, first:last].contiguous()
            values = value[row, :, first:last].contiguous()
        bias = None if added is None else added[row if len(added) > 1 else 0]
        attend_row(queries, keys, values, bias, scale, out[row])
    if mask is not None and mask.idle is not None:
        out.masked_fill_(mask.idle, 0)
    return out


def copied(operands: Operands, row: int, tokens: slice | None = None) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of a row, or of some of its tokens, each copied together.

    The products would copy head by head what lies scattered, which took a tenth of the time.
    """
    if isinstance(operands, torch.Tensor):
        stacked = operands.select(1, row)
        return (stacked if tokens is None else stacked[:, :, tokens]).contiguous().unbind(0)
    parts = (operand[row] for operand in operands)
    return tuple((p if tokens is None else p[:, tokens]).contiguous() for p in parts)


def attend_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
) -> None:
    """Attend within one sequence.

    Args:
        query: shape (heads, queries, head size), contiguous.
        key: shape (heads, keys, head size), contiguous.
        value: the same.
        bias: added to the scores, broadcast to (heads, queries, keys).
        scale: factor on the scores.
        out: shape (heads, queries, head size), any strides; is written.
    """
    heads, queries, _ = query.shape
    keys = key.shape[1]
    together = max(1, min(heads, SCORE_BYTES // (queries * keys * query.element_size())))
    scores = query.new_empty(together, queries, keys)
    transposed = key.transpose(1, 2)
    with fast_products() if query.dtype is torch.float32 else _AS_IT_IS:
        for begin in range(0, heads, together):
            end = min(begin + together, heads)
            part = scores[: end - begin]
            torch.baddbmm(
                part, query[begin:end], transposed[begin:end], beta=0, alpha=scale, out=part
            )
            if bias is not None:
                part += bias if len(bias) == 1 else bias[begin:end]
            torch.softmax(part, -1, out=part)
            torch.bmm(part, value[begin:end], out=out[begin:end])
