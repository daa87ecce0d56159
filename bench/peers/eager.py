"""The published checkpoints in eager PyTorch, for the peers that serve as their docs show."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from contract.manifest import ClassifierManifest
from contract.store import read_manifest
from training.fit.normalise import Normalise
from training.networks.classifier import make_classifier
from training.networks.curve import CurveMLP


def classifier(folder: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Images [n, 32, 32, 3] → probabilities [n, classes], from the checkpoint in ``folder``.

    Without the temperature, which the graph divides the logits by: it changes no top-1.
    """
    manifest = read_manifest(folder)
    assert isinstance(manifest, ClassifierManifest)
    config = manifest.training.config
    parts = nn.ModuleDict(
        {
            "network": make_classifier(
                str(config["network"]), str(config["preset"]), len(manifest.classes)
            ),
            "normalise": Normalise(torch.zeros(3), torch.ones(3)),
        }
    )
    parts.load_state_dict(load_file(folder / "checkpoint.safetensors"))
    parts.eval()

    def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            x = parts["normalise"](torch.from_numpy(images).permute(0, 3, 1, 2))
            return parts["network"](x).softmax(1).numpy()

    return classify


def derivative(folder: Path) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """f′ of the curve by autograd: x [n] → f′(x) [n]. The gradient of Σ f holds each x's own."""
    weights = load_file(folder / "checkpoint.safetensors")
    # The ranges are in the checkpoint, too, and are loaded with it.
    hidden = [len(weights[name]) for name in sorted(weights) if name.endswith("bias")][:-1]
    network = CurveMLP((-1, 1), (-1, 1), hidden)
    network.load_state_dict(weights)
    network.requires_grad_(False)

    def differentiate(x: NDArray[np.float64]) -> NDArray[np.float64]:
        points = torch.from_numpy(x).requires_grad_()
        (slope,) = torch.autograd.grad(network(points).sum(), points)
        return slope.numpy()

    return differentiate
