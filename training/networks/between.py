"""Networks between the homework's table and our own, for the ablation: one difference at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN


@dataclass(frozen=True)
class Plan:
    """In what a network differs from the table's, and how large it is if it is our own."""

    batchnorm: bool = False
    """After both convolutions of the table."""
    groups: bool = False
    """Our own network in place of the table's."""
    whitening: bool = False
    """Its first convolution is computed from the images and frozen, not learned."""
    widths: tuple[int, ...] = (24, 48, 120)
    depths: tuple[int, ...] = (2, 2, 2)

    def build(self, classes: int) -> nn.Module:
        """The network for 32 × 32 pixels, from PyTorch's global generator."""
        if self.groups:
            kind = ImprovedCNN if self.whitening else UnwhitenedCNN
            return kind(classes, self.widths, self.depths)
        return NormedBaselineCNN(classes) if self.batchnorm else BaselineCNN(classes)


class NormedBaselineCNN(BaselineCNN):
    """The table's network with BatchNorm between each convolution and its ReLU."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        for conv in ("conv1", "conv2"):
            self.insert_after(conv, nn.BatchNorm2d(getattr(self, conv).out_channels))

    def insert_after(self, name: str, module: nn.Module) -> None:
        """Have ``module`` run after the layer called ``name``."""
        layers = list(self.named_children())
        at = [key for key, _ in layers].index(name) + 1
        layers.insert(at, (f"norm_{name}", module))
        self._modules.clear()
        for key, layer in layers:
            self.add_module(key, layer)


class UnwhitenedCNN(ImprovedCNN):
    """Our own network with a first convolution that is learned like the others."""

    def __init__(self, classes: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__(classes, widths, depths)
        self.whitening.weight.requires_grad_(True)

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Nothing here depends on the training images."""
