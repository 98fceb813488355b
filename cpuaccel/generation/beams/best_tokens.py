"""The best tokens of rows of scores."""

import torch

BLOCK = 64
"""Scores of which the highest one is compared first. All others are read only where it is among
the highest of a row: ``torch.topk`` of a whole vocabulary takes longer than a small model's layer."""


def best_tokens(scores: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what ``scores.topk(number)`` does, where no two scores are equal.

    Args:
        scores: shape (rows, vocabulary).
        number: at most the vocabulary.

    Returns:
        The highest scores of each row, and their tokens, both of shape (rows, number).
    """
    vocabulary = scores.shape[-1]
    blocks = vocabulary // BLOCK
    if blocks <= 2 * number:
        best = scores.topk(number)
        return best.values, best.indices
    whole = blocks * BLOCK
    highest = scores[:, :whole].unflatten(-1, (blocks, BLOCK)).amax(-1)
    chosen = highest.topk(number).indices
    tokens = (chosen[..., None] * BLOCK + torch.arange(BLOCK)).flatten(1)
    rest = torch.arange(whole, vocabulary).expand(len(scores), -1)
    tokens = torch.cat([tokens, rest], -1)
    best = scores.gather(-1, tokens).topk(number)
    return best.values, tokens.gather(-1, best.indices)
