"""Attention masks at call time: read once in each call, reduced to spans of keys if possible."""

from dataclasses import dataclass

import torch

Span = tuple[int, int]
"""Begin and end of the keys that are attended to."""


@dataclass(frozen=True)
class Mask:
    """A mask in one call; shapes (batch or 1, heads or 1, queries or 1, keys)."""

    original: torch.Tensor
    spans: list[Span] | None = None  # by row, if its queries attend to one span; nothing is added
    added: torch.Tensor | None = None  # to the scores, if there are no spans
    idle: torch.Tensor | None = None  # True for queries whose result is 0; 1 key


def read_mask(mask: torch.Tensor, dtype: torch.dtype) -> Mask | None:
    """Read a mask, once for all layers that use it; None if it masks nothing.

    It has shape (batch or 1, heads or 1, queries or 1, keys); bool, True for keys to attend to, or
    floating, added to the scores. ``dtype`` is that of the scores.
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
