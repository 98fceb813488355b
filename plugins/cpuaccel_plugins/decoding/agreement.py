"""Whether the kernels compute what a part of a model computes by its own code."""

import torch

LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.int8: 0.1, torch.uint8: 0.3}
"""Largest accepted difference by the coarsest dtype, relative to the largest magnitude. Weights in
4 bits are in ``torch.uint8``."""


def agrees(
    found: torch.Tensor, expected: torch.Tensor, weights: torch.dtype = torch.float32
) -> bool:
    """Whether an output is close enough to that of the model's own code.

    Args:
        found: the kernels' output.
        expected: the output of the model's own code.
        weights: the dtype of the weights that only the kernels computed with.
    """
    if found.shape != expected.shape:
        return False
    difference = (found - expected).abs().max() / expected.abs().max()
    return bool(difference <= max(LIMITS[expected.dtype], LIMITS[weights]))
