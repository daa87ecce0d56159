"""Training on only the hardest images of each batch, chosen by a small second network.

Images that a network already gets right teach it little more, but cost as much. The method is
K. Jordan's, https://github.com/KellerJordan/cifar10-airbench, airbench96_faster.py, 2024.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.fit.device import Device
from training.fit.optim import make_optimizers, take_step
from training.fit.recipe import Recipe
from training.networks.cnn_improved import ImprovedCNN

WIDTHS = (32, 64, 128)
DEPTHS = (2, 2, 2)
LEARNS_FIRST = 60  # batches; before it knows something, it would take the outliers
LEARNS_EVERY = 4  # batches later; judging needs less training than answering


class HardExampleSelector:
    """A small network that sees images at 16×16 pixels, and learns from those it finds hard."""

    def __init__(self, images: Tensor, classes: int, recipe: Recipe, device: Device) -> None:
        """Made for ``images``, normalised [n, 3, h, w], of which the whitening is computed."""
        network = ImprovedCNN(classes, WIDTHS, DEPTHS).to(images.device)
        self.network: nn.Module = network.to(memory_format=torch.channels_last).train()
        network.prepare(_small(images))
        network.whitening.bias.requires_grad_(False)  # type: ignore[union-attr]
        self.optimizers = make_optimizers(network, recipe)
        self._recipe, self._device = recipe, device

    def hardest(self, images: Tensor, labels: Tensor, step: int, lr_factor: float) -> Tensor:
        """Indices of the recipe's ``trained_share`` of ``images``, those of the largest loss.

        The first ``LEARNS_FIRST`` steps train this network, at its learning rate times
        ``lr_factor``, and take any images; later ones train it if multiples of ``LEARNS_EVERY``.
        """
        learns_first = step < LEARNS_FIRST
        learns = learns_first or step % LEARNS_EVERY == 0
        with torch.set_grad_enabled(learns), self._device.precision():
            logits = self.network(_small(images)).float()
            losses = functional.cross_entropy(
                logits, labels, label_smoothing=self._recipe.label_smoothing, reduction="none"
            )
        count = max(1, round(len(images) * self._recipe.trained_share))
        if learns_first:
            chosen = torch.arange(count, device=losses.device)
        else:
            chosen = losses.detach().topk(count).indices
        if learns:
            losses[chosen].mean().backward()
            take_step(self.optimizers, lr_factor)
        return chosen


def _small(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, max(1, images.shape[2] // 16)).contiguous(
        memory_format=torch.channels_last
    )
