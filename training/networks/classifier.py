"""An image classifier's network by name.

Each has, besides what any module has, ``prepare(images)``, which sets what depends on the training
images before training starts, ``folded()``, a copy for inference, and ``early_layer()``, a module
whose output [n, channels, h, w] tells familiar pictures from others.
"""

from pathlib import Path

from torch import nn

from training.errors import JobError
from training.networks.backbone import BACKBONES, Backbone
from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN

NETWORKS = ("baseline", "improved", "fast", "wide")
BASELINE_SIDE = 32


def check_side(network: str, side: int) -> None:
    """Raise JobError if ``network`` can't take pictures of ``side`` × ``side``."""
    if network == "baseline" and side != BASELINE_SIDE:
        raise JobError(
            f"--network baseline is the homework's, for {BASELINE_SIDE}×{BASELINE_SIDE} pixels; "
            f"for {side}×{side} take --network improved, or add --side {BASELINE_SIDE}"
        )


def make_classifier(
    network: str, preset: str, classes: int, side: int = 32, weights: Path | None = None
) -> nn.Module:
    """The network of that name, of ``NETWORKS`` or ``BACKBONES``, for ``side`` × ``side`` pixels.

    ``improved`` is narrower in preset ``quick``. ``fast`` takes half of the int8 milliseconds of
    ``improved``; ``wide`` is the teacher of both. A backbone starts from ``weights``, a file of
    torchvision's, or from nothing where that is None.
    """
    if network in BACKBONES:
        return Backbone(network, classes, weights)
    if network == "baseline":
        return BaselineCNN(classes)
    if network == "fast":
        return ImprovedCNN(classes, (32, 112, 256), (2, 2, 3), nn.ReLU, side=side)
    if network == "wide":
        return ImprovedCNN(classes, (128, 384, 512), (2, 3, 3), side=side)
    if preset == "quick":
        return ImprovedCNN(classes, widths=(48, 112, 224), depths=(2, 2, 2), side=side)
    return ImprovedCNN(classes, side=side)
