"""Whether the kernels compute what a part of a model computes by its own code."""

import logging

import torch

logger = logging.getLogger("cpuaccel")

LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest accepted difference by the dtype of an output, relative to the largest magnitude."""

FEW_BITS = {0: 0.0, 8: 0.1, 4: 0.3}
"""The same where only the kernels computed with weights of so many bits; 0: of floats."""

ROUNDED = 0.01
"""The same where both computed with them: tiny differences change how activations are rounded."""


def agrees(found: torch.Tensor, expected: torch.Tensor, rounding: float = 0.0) -> bool:
    """Whether an output is close enough to that of the model's own code.

    Args:
        found: the kernels' output.
        expected: the output of the model's own code.
        rounding: the difference that is accepted in any dtype.
    """
    if found.shape != expected.shape:
        return False
    difference = (found - expected).abs().max() / expected.abs().max()
    return bool(difference <= max(LIMITS[expected.dtype], rounding))


class Checked:
    """A part of a model that the kernels compute. At first its own code does, too.

    Attributes:
        checking: whether both are computed, and compared.
        agrees: whether they never differed.
    """

    def __init__(self, name: str) -> None:
        """Begin to check a part, of which the log has the name."""
        self._name = name
        self._compared = False
        self.checking = self.agrees = True

    def finish_checking(self, *, agreed: bool = False) -> None:
        """From now on compute by the kernels alone, if both were compared and agree.

        Args:
            agreed: whether they were compared before and did.
        """
        self.checking = False
        self.agrees &= self._compared or agreed

    def compare(self, found: torch.Tensor, expected: torch.Tensor, rounding: float = 0.0) -> None:
        """Compare the kernels' output with that of the part's own code; see ``agrees``."""
        self._compared = True
        if not agrees(found, expected, rounding):
            logger.info(
                "%s computes something else than the kernels, and runs as it is", self._name
            )
            self.agrees = False
