"""Attention masks at call time: read once a call, and kept as small as they are."""

from dataclasses import dataclass

import torch

Span = tuple[int, int]
"""From where to where keys are attended to."""

Spans = list[Span]
"""Of each row of a batch."""


@dataclass(frozen=True)
class Mask:
    """What a mask comes to in one call.

    Attributes:
        given: the mask as the model made it, for the stock operator.
        spans: where every query of a row attends to the same stretch of keys, these stretches:
            attention then reads no other key, and adds no mask. Else None.
        added: else what is added to the scores, shape (batch or 1, heads or 1, queries or 1,
            keys); None with spans.
        idle: the queries that attend to nothing, whose result is 0; None where there are none.
            Shape (batch or 1, heads or 1, queries or 1, 1).
    """

    given: torch.Tensor
    spans: Spans | None = None
    added: torch.Tensor | None = None
    idle: torch.Tensor | None = None


def read_mask(given: torch.Tensor, dtype: torch.dtype) -> Mask | None:
    """Look at a mask's values, once for all layers that use it.

    Args:
        given: shape (batch or 1, heads or 1, queries or 1, keys); bool, True where attended, or
            floating, added to the scores.
        dtype: of the scores.

    Returns:
        None where it masks nothing.
    """
    boolean = given.dtype is torch.bool
    if bool(given.all()) if boolean else not bool(given.any()):
        return None
    small = _narrowed(given)
    attended = small if boolean else _as_boolean(small)
    if attended is not None and attended.shape[1] == attended.shape[2] == 1:
        spans = _spans(attended[:, 0, 0])
        if spans is not None:
            return Mask(given, spans=spans)
    if not boolean:
        return Mask(given, added=small.to(dtype))
    added = torch.zeros(small.shape, dtype=dtype).masked_fill_(~small, torch.finfo(dtype).min)
    idle = ~small.any(-1, keepdim=True)
    return Mask(given, added=added, idle=idle if bool(idle.any()) else None)


def _narrowed(mask: torch.Tensor) -> torch.Tensor:
    """The mask with one head, and one query, where all of them are alike."""
    for axis in (1, 2):
        first = mask.narrow(axis, 0, 1)
        if mask.shape[axis] > 1 and (mask.stride(axis) == 0 or bool((mask == first).all())):
            mask = first
    return mask


def _as_boolean(mask: torch.Tensor) -> torch.Tensor | None:
    """A floating mask that only ever adds nothing or takes all away, as True and False."""
    attended = mask == 0
    taken = mask <= torch.finfo(mask.dtype).min / 2
    return attended if bool((attended | taken).all()) else None


def _spans(attended: torch.Tensor) -> Spans | None:
    """One stretch of keys for each row, shape (batch, keys); None where a row has not just one."""
    counts = attended.sum(1)
    firsts = attended.to(torch.uint8).argmax(1)
    lasts = attended.shape[1] - attended.flip(1).to(torch.uint8).argmax(1)
    if not bool((counts == lasts - firsts).all()) or not bool(counts.all()):
        return None
    return list(zip(firsts.tolist(), lasts.tolist()))
