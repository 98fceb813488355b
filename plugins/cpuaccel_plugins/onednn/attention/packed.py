"""Real tokens only, at call time: a batch as one long sequence of its tokens without padding."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from cpuaccel_plugins.common.token_packing import (
    kept_tokens,
    pack_tokens,
    packing_indices,
    unpack_tokens,
)
from cpuaccel_plugins.onednn.attention.attend import (
    MethodByLength,
    Operands,
    attend_by_graph,
    attend_by_kernel,
    attend_by_stock,
    attend_sequence,
    load_workspace,
    slice_tokens,
    split_operands,
)


class Sequence(NamedTuple):
    """The place of one sequence of the batch in the long one."""

    start: int
    first: int  # to attend to: after start if that is padding
    end: int


@dataclass(frozen=True)
class Layout:
    """How the tokens of one call are packed; no indices if all are."""

    batch: int
    length: int  # with padding
    tokens: int  # the length of the long sequence
    index: torch.Tensor | None  # of the packed tokens in the flattened batch, shape (tokens,)
    sources: torch.Tensor | None  # the packed token to unpack to each, shape (batch * length,)
    sequences: list[Sequence]


def read_layout(real: torch.Tensor) -> Layout:
    """Read which tokens are real, once a call; shape (batch, length), bool."""
    batch, length = real.shape
    if bool(real.all()):
        every = [Sequence(row * length, row * length, (row + 1) * length) for row in range(batch)]
        return Layout(batch, length, batch * length, None, None, every)
    packed = kept_tokens(real)
    counts = packed.sum(1).tolist()
    sequences, start = [], 0
    for count, begins in zip(counts, real[:, 0].tolist()):
        sequences.append(Sequence(start, start if begins else start + 1, start + count))
        start += count
    return Layout(batch, length, start, *packing_indices(packed), sequences)


def pack(hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape (batch or 1, length, *) becomes (1, tokens, *)."""
    return pack_tokens(hidden, layout.batch, layout.index)


def unpack(packed: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape (1, tokens, *) becomes (batch, length, *); padding repeats the token before it."""
    return unpack_tokens(packed, (layout.batch, layout.length), layout.sources)


def read_patterns(mask: torch.Tensor, layout: Layout, dtype: torch.dtype) -> list[torch.Tensor]:
    """Read what to add to each sequence's scores, shape (1, tokens, tokens).

    ``mask`` also has windows: shape (batch, 1, length, length), bool, True for keys to attend to.
    """
    places = layout.index
    if places is None:
        places = torch.arange(layout.tokens)
    patterns = []
    for row, (start, first, end) in enumerate(layout.sequences):
        own = places[start:end] - row * layout.length
        keys = own[first - start :]
        allowed = mask[row, 0][own][:, keys]
        # A query that attends to nothing is padding: its result is arbitrary, but finite.
        lowest = torch.finfo(dtype).min
        zeros = torch.zeros(1, *allowed.shape, dtype=dtype)
        patterns.append(zeros.masked_fill_(~allowed, lowest))
    return patterns


def attend_packed(
    operands: Operands,
    layout: Layout,
    patterns: list[torch.Tensor] | None,  # from read_patterns; None: attend to all
    scale: float,
    method_by_length: MethodByLength,
) -> torch.Tensor:
    """Attend within each sequence of the long one; returns shape (1, tokens, heads x head size)."""
    if isinstance(operands, torch.Tensor):
        _, count, _, heads, size = operands.shape
        dtype = operands.dtype
    else:
        _, heads, count, size = operands[0].shape
        dtype = operands[0].dtype
    out = torch.empty(1, count, heads * size, dtype=dtype)
    for row, (start, first, end) in enumerate(layout.sequences):
        bias = None if patterns is None else patterns[row]
        own = slice_tokens(operands, start, end)
        span = None if first == start else (first - start, end - start)
        method = method_by_length.nearest(end - first)
        if method == "stock":
            mask = None if bias is None else bias[None]
            out[:, start:end] = attend_by_stock(own, span, mask, scale)
            continue
        if method == "graph" and bias is None and span is None:
            result = attend_by_graph(own, scale)
            if result is not None:
                out[:, start:end] = result
                continue
        if bias is None and attend_by_kernel(
            split_operands(own, span), scale, method, out[:, start:end]
        ):
            continue
        attend_sequence(load_workspace(own, span), bias, scale, out, start)
    return out
