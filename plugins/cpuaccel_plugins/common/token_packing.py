"""Packing a padded batch into one sequence of the tokens that an encoder has to compute.

Kept are the real tokens and the first token of each sequence, which pooled heads read. Where the
first token is padding, the model attends from it but never to it.
"""

import torch


def kept_tokens(real: torch.Tensor) -> torch.Tensor:
    """Mark the tokens to keep; ``real`` and the result have shape (batch, length), bool."""
    kept = real.clone()
    kept[:, 0] = True
    return kept


def packing_indices(kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices with which tokens are packed and unpacked; ``kept`` as above.

    These are the places of the kept tokens in the flattened batch, shape (tokens,), and for each
    place in it the token to unpack there, shape (batch * length,): for padding the last kept one,
    because decoders of speech read padding too. They merge repetitions, but not zeros.
    """
    flat = kept.reshape(-1)
    return flat.nonzero().squeeze(1), flat.cumsum(0) - 1


def pack_tokens(hidden: torch.Tensor, batch: int, index: torch.Tensor | None) -> torch.Tensor:
    """Pack shape (batch or 1, length, *) into (1, tokens, *); without an index keep all tokens."""
    if hidden.shape[0] != batch:  # rotary embeddings: one row for all sequences
        hidden = hidden.expand(batch, *hidden.shape[1:])
    flat = hidden.reshape(-1, *hidden.shape[2:])
    return (flat if index is None else flat.index_select(0, index)).unsqueeze(0)


def unpack_tokens(
    packed: torch.Tensor, shape: tuple[int, int], sources: torch.Tensor | None
) -> torch.Tensor:
    """Unpack shape (1, tokens, *) into (batch, length, *), with padding from ``sources``."""
    flat = packed[0]
    if sources is not None:
        flat = flat.index_select(0, sources)
    return flat.view(*shape, *flat.shape[1:])
