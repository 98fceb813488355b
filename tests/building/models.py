"""A model whose code depends on sizes."""

import torch
from torch.nn import functional


class Image(torch.nn.Module):
    """Takes another path for large images, and computes a number from their width."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.convolution(pixels)
        x = functional.avg_pool2d(x, 2) * 2 if x.shape[2] > 20 else x
        return x.mean((2, 3)) * (pixels.shape[3] / 8)
