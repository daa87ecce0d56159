"""An image classifier's network by name.

Each has, besides what any module has, ``prepare(images)``, which sets what depends on the training
images before training starts, and ``folded()``, a copy for inference.
"""

from torch import nn

from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN


def make_classifier(network: str, preset: str, classes: int) -> nn.Module:
    """The network named ``baseline`` or ``improved``; the preset ``quick`` takes a narrower one."""
    if network == "baseline":
        return BaselineCNN(classes)
    if preset == "quick":
        return ImprovedCNN(classes, widths=(48, 112, 224), depths=(2, 2, 2))
    return ImprovedCNN(classes)
