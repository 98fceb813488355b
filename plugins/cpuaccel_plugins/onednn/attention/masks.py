"""Attention masks at call time: read once in each call, reduced to spans of keys if possible."""

from dataclasses import dataclass

import torch

Span = tuple[int, int]
"""Begin and end of the keys that are attended to."""


@dataclass(frozen=True)
class Mask:
    """A mask as attention uses it in one call.

    Attributes:
        original: the mask that the model made, for the stock operator.
        spans: one span of keys for each row of the batch, if all queries of a row attend to the
            same one: attention then reads only these keys and adds nothing. Else None.
        added: without spans, what is added to the scores; shape (batch or 1, heads or 1, queries
            or 1, keys).
        idle: True for queries that attend to nothing, whose result is 0; None if there are none.
            Shape (batch or 1, heads or 1, queries or 1, 1).
    """

    original: torch.Tensor
    spans: list[Span] | None = None
    added: torch.Tensor | None = None
    idle: torch.Tensor | None = None


def read_mask(mask: torch.Tensor, dtype: torch.dtype) -> Mask | None:
    """Read a mask's values, once for all layers that use it.

    Args:
        mask: shape (batch or 1, heads or 1, queries or 1, keys); bool, True for keys to attend
            to, or floating, added to the scores.
        dtype: of the scores.

    Returns:
        None if it masks nothing.
    """
    boolean = mask.dtype is torch.bool
    if bool(mask.all()) if boolean else not bool(mask.any()):
        return None
    small = _narrow(mask)
    attended = small if boolean else _as_boolean(small)
    if attended is not None and attended.shape[1] == attended.shape[2] == 1:
        spans = _spans(attended[:, 0, 0])
        if spans is not None:
            return Mask(mask, spans=spans)
    if not boolean:
        return Mask(mask, added=small.to(dtype))
    added = torch.zeros(small.shape, dtype=dtype).masked_fill_(~small, torch.finfo(dtype).min)
    idle = ~small.any(-1, keepdim=True)
    return Mask(mask, added=added, idle=idle if bool(idle.any()) else None)


def _narrow(mask: torch.Tensor) -> torch.Tensor:
    """Reduce the axis of heads, and that of queries, to size 1 if all along it are equal."""
    for axis in (1, 2):
        first = mask.narrow(axis, 0, 1)
        if mask.shape[axis] > 1 and (mask.stride(axis) == 0 or bool((mask == first).all())):
            mask = first
    return mask


def _as_boolean(mask: torch.Tensor) -> torch.Tensor | None:
    """A floating mask that only adds 0 or about -infinity, as a boolean one; else None."""
    attended = mask == 0
    masked = mask <= torch.finfo(mask.dtype).min / 2
    return attended if bool((attended | masked).all()) else None


def _spans(attended: torch.Tensor) -> list[Span] | None:
    """The span of keys of each row, shape (batch, keys); None if a row has none or several."""
    counts = attended.sum(1)
    firsts = attended.to(torch.uint8).argmax(1)
    lasts = attended.shape[1] - attended.flip(1).to(torch.uint8).argmax(1)
    if not bool((counts == lasts - firsts).all()) or not bool(counts.all()):
        return None
    return list(zip(firsts.tolist(), lasts.tolist()))
