"""What an image classifier's network must offer, and how one is made by name."""

from typing import Protocol, Self

from torch import Tensor, nn

from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN


class Classifier(Protocol):
    """A module from normalised images [n, 3, 32, 32] to logits [n, classes]."""

    def prepare(self, images: Tensor) -> None:
        """Set what depends on the training images before training starts."""

    def folded(self) -> Self:
        """A copy for inference."""


def make_classifier(network: str, preset: str, classes: int) -> nn.Module:
    """The network named ``baseline`` or ``improved``; the preset ``quick`` takes a narrower one."""
    if network == "baseline":
        return BaselineCNN(classes)
    if preset == "quick":
        return ImprovedCNN(classes, widths=(48, 112, 224), depths=(2, 2, 2))
    return ImprovedCNN(classes)
