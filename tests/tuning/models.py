"""A model with a slow and a quick way, whose difference is beyond any noise."""

import time

import torch

SLOW_SECONDS = 0.004


class Waiting(torch.nn.Module):
    """Doubles its input, and sleeps unless ``quick``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((), 2.0))

    def forward(self, input_ids: torch.Tensor, quick: bool = False) -> torch.Tensor:
        if not quick:
            time.sleep(SLOW_SECONDS)
        return input_ids * self.weight


IDS = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
"""Inputs of ``Waiting``."""
