"""The published checkpoints in eager PyTorch, for the peers that serve as their docs show."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN
from training.networks.curve import CurveMLP


def classifier(folder: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Images [n, 32, 32, 3] → probabilities [n, classes], from the checkpoint in ``folder``."""
    weights = load_file(folder / "checkpoint.safetensors")
    network = _network(weights)
    network.load_state_dict(weights)
    network.eval()
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1)
    deviation = torch.tensor([0.247, 0.2435, 0.2616]).reshape(1, 3, 1, 1)

    def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return network((x - mean) / deviation).softmax(1).numpy()

    return classify


def derivative(folder: Path) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """f′ of the curve by autograd: x [n] → f′(x) [n]. The gradient of Σ f holds each x's own."""
    weights = load_file(folder / "checkpoint.safetensors")
    # The ranges are in the checkpoint, too, and are loaded with it.
    network = CurveMLP((-1, 1), (-1, 1), width=len(weights["dense1.weight"]))
    network.load_state_dict(weights)
    network.requires_grad_(False)

    def differentiate(x: NDArray[np.float64]) -> NDArray[np.float64]:
        points = torch.from_numpy(x).requires_grad_()
        (slope,) = torch.autograd.grad(network(points).sum(), points)
        return slope.numpy()

    return differentiate


def _network(weights: dict[str, Tensor]) -> nn.Module:
    """The class that a classifier's checkpoint belongs to, of the size that its shapes say."""
    if "whitening.weight" not in weights:
        return BaselineCNN(classes=len(weights["dense3.bias"]))
    groups = sorted(name for name in weights if re.fullmatch(r"groups\.\d+\.conv1\.weight", name))
    return ImprovedCNN(
        classes=len(weights["head.weight"]),
        widths=tuple(len(weights[name]) for name in groups),
        depths=tuple(
            1 + sum(bool(re.fullmatch(rf"groups\.{i}\.convs\.\d+\.weight", n)) for n in weights)
            for i in range(len(groups))
        ),
    )
