"""Attention at call time, through two matrix products and a softmax, or the stock operator."""

import bisect
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from .masks import Mask
from .precision import fast_products

SCORE_BYTES = 8 * 2**20
"""Scores computed at once at most: they are to stay in the processor's caches."""


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


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask | None,
    scale: float,
    products: Products,
) -> torch.Tensor:
    """Attend, row by row of the batch, copying together only that row's operands.

    Args:
        query: shape (batch, heads, queries, head size), any strides.
        key: shape (batch, heads, keys, head size).
        value: the same.
        mask: what ``read_mask`` made.
        scale: factor on the scores.
        products: when to use matrix products.

    Returns:
        Shape (batch, heads, queries, head size), whose memory is in the order (batch, queries,
        heads, head size), as the layers that follow want it.
    """
    batch, heads, queries, _ = query.shape
    if not products.pay(key.shape[2]):
        given = None if mask is None else mask.given
        return scaled_dot_product_attention(query, key, value, given, scale=scale)
    out = query.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2)
    spans = None if mask is None else mask.spans
    added = None if mask is None else mask.added
    for row in range(batch):
        keys, values = key[row], value[row]
        if spans is not None:
            first, last = spans[row if len(spans) > 1 else 0]
            keys, values = keys[:, first:last], values[:, first:last]
        bias = None if added is None else added[row if len(added) > 1 else 0]
        attend_row(query[row], keys, values, bias, scale, out[row])
    if mask is not None and mask.idle is not None:
        out.masked_fill_(mask.idle, 0)
    return out


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
        query: shape (heads, queries, head size).
        key: shape (heads, keys, head size).
        value: the same.
        bias: added to the scores, broadcast to (heads, queries, keys).
        scale: factor on the scores.
        out: shape (heads, queries, head size), any strides; is written.
    """
    heads, queries, _ = query.shape
    keys = key.shape[1]
    together = max(1, min(heads, SCORE_BYTES // (queries * keys * query.element_size())))
    scores = query.new_empty(together, queries, keys)
    # The products copy head by head what lies scattered, which took a tenth of the time.
    query, transposed, value = (
        query.contiguous(),
        key.contiguous().transpose(1, 2),
        value.contiguous(),
    )
    with fast_products():
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
