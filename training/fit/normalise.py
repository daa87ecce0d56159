"""Pixels to a network's input."""

import torch
from torch import Tensor, nn


def at_once(rows: int, images: Tensor) -> int:
    """How many of ``images`` [n, 3, h, w] are as many pixels as ``rows`` of 32 × 32; at least 1."""
    return max(1, rows * 1024 // (images.shape[2] * images.shape[3]))


class Normalise(nn.Module):
    """Pixels uint8 [n, 3, h, w] to float32 with mean 0 and standard deviation 1 per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1))
        self.register_buffer("std", std.reshape(1, 3, 1, 1))

    @classmethod
    def of(cls, images: Tensor) -> "Normalise":
        """With the statistics of these images, uint8 [n, 3, h, w]."""
        pixels = len(images) * images.shape[2] * images.shape[3]
        total = torch.zeros(3, dtype=torch.float64, device=images.device)
        square = torch.zeros_like(total)
        for chunk in images.split(at_once(4096, images)):
            values = chunk.double() / 255
            total += values.sum((0, 2, 3))
            square += values.square().sum((0, 2, 3))
        mean = total / pixels
        std = (square / pixels - mean**2).clamp_min(1e-8).sqrt()
        return cls(mean.float(), std.float())

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - self.mean) / self.std
