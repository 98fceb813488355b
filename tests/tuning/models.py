"""A model with a slow way and a quick way, so that who is faster is beyond any noise."""

import time

import torch

SLOW_SECONDS = 0.004


class Waiting(torch.nn.Module):
    """Doubles its input, and waits unless it is told to be quick."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((), 2.0))

    def forward(self, input_ids: torch.Tensor, quick: bool = False) -> torch.Tensor:
        if not quick:
            time.sleep(SLOW_SECONDS)
        return input_ids * self.weight
