"""Computing on real tokens only, at call time: a batch as one long sequence of its tokens."""

from dataclasses import dataclass

import torch

from cpuaccel_plugins.onednn.attention.attend import (
    Operands,
    Ways,
    attend_row,
    by_graph,
    by_stock,
    cut,
    load,
)


@dataclass(frozen=True)
class Sequence:
    """Where one sequence of the batch stands in the long one.

    Attributes:
        start: of its tokens.
        first: of those that are attended to: all but a first token that is padding.
        end: of both.
    """

    start: int
    first: int
    end: int


@dataclass(frozen=True)
class Layout:
    """How the tokens of one call are packed.

    Kept are the real ones, and of every sequence the first, which pooled heads read.

    Attributes:
        batch: sequences.
        length: tokens of each, padding included.
        tokens: tokens kept.
        index: their places in the flattened batch, shape (tokens,); None where all are kept.
        sources: for every place in the flattened batch, the kept token that is put there on
            unpacking: itself, or for padding the last one before it, shape (batch * length,);
            None where all are kept.
        sequences: where each sequence stands.
    """

    batch: int
    length: int
    tokens: int
    index: torch.Tensor | None
    sources: torch.Tensor | None
    sequences: list[Sequence]


def read_layout(real: torch.Tensor) -> Layout:
    """Look at which tokens are real, once a call; shape (batch, length), bool."""
    batch, length = real.shape
    if bool(real.all()):
        every = [Sequence(row * length, row * length, (row + 1) * length) for row in range(batch)]
        return Layout(batch, length, batch * length, None, None, every)
    kept = real.clone()
    kept[:, 0] = True
    counts = kept.sum(1).tolist()
    sequences, start = [], 0
    for count, begins in zip(counts, real[:, 0].tolist()):
        sequences.append(Sequence(start, start if begins else start + 1, start + count))
        start += count
    flat = kept.reshape(-1)
    return Layout(batch, length, start, flat.nonzero().squeeze(1), flat.cumsum(0) - 1, sequences)


def tokens(layout: Layout) -> int:
    """How many tokens are kept: the length of the long sequence."""
    return layout.tokens


def pack(hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape (batch or 1, length, *) becomes (1, tokens, *)."""
    if hidden.shape[0] != layout.batch:  # rotary embeddings are given once for all sequences
        hidden = hidden.expand(layout.batch, *hidden.shape[1:])
    flat = hidden.reshape(-1, *hidden.shape[2:])
    return (flat if layout.index is None else flat.index_select(0, layout.index)).unsqueeze(0)


def unpack(packed: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Shape (1, tokens, *) becomes (batch, length, *); padding repeats the token before it."""
    flat = packed[0]
    if layout.sources is not None:
        flat = flat.index_select(0, layout.sources)
    return flat.view(layout.batch, layout.length, *flat.shape[1:])


def read_patterns(mask: torch.Tensor, layout: Layout, dtype: torch.dtype) -> list[torch.Tensor]:
    """What is added to each sequence's scores, of a mask that says more than what is real.

    Args:
        mask: shape (batch, 1, length, length), bool, True where attended.
        layout: of the call.
        dtype: of the scores.

    Returns:
        For each sequence shape (1, tokens, tokens).
    """
    places = layout.index
    if places is None:
        places = torch.arange(layout.tokens)
    found = []
    for row, sequence in enumerate(layout.sequences):
        own = places[sequence.start : sequence.end] - row * layout.length
        keys = own[sequence.first - sequence.start :]
        allowed = mask[row, 0][own][:, keys]
        # A query that attends to nothing is padding: what comes of it is left open, but finite.
        lowest = torch.finfo(dtype).min
        found.append(torch.zeros(1, *allowed.shape, dtype=dtype).masked_fill_(~allowed, lowest))
    return found


def attend_packed(
    operands: Operands,
    layout: Layout,
    patterns: list[torch.Tensor] | None,
    scale: float,
    ways: Ways,
) -> torch.Tensor:
    """Attend within each sequence of the long one.

    Args:
        operands: of all sequences, as of a batch of one; any strides.
        layout: where the sequences stand.
        patterns: what ``read_patterns`` made, None where all real tokens are attended to.
        scale: factor on the scores.
        ways: how to do it.

    Returns:
        Shape (1, tokens, heads x head size).
    """
    if isinstance(operands, torch.Tensor):
        _, count, _, heads, size = operands.shape
        dtype = operands.dtype
    else:
        _, heads, count, size = operands[0].shape
        dtype = operands[0].dtype
    out = torch.empty(1, count, heads * size, dtype=dtype)
    for row, (start, first, end) in enumerate(
        (sequence.start, sequence.first, sequence.end) for sequence in layout.sequences
    ):
        bias = None if patterns is None else patterns[row]
        own = cut(operands, start, end)
        span = None if first == start else (first - start, end - start)
        way = ways.at(end - first)
        if way == "stock":
            out[:, start:end] = by_stock(own, span, None if bias is None else bias[None], scale)
            continue
        if way == "graph" and bias is None and span is None:
            whole = by_graph(own, scale)
            if whole is not None:
                out[:, start:end] = whole
                continue
        attend_row(load(own, span), bias, scale, out, start)
    return out
