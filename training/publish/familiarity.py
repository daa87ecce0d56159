"""How familiar a picture is: a classifier names one of its classes whatever it is shown.

Two signs are added up. The energy of the logits (W. Liu et al., "Energy-based Out-of-distribution
Detection", arXiv 2010.03759) tells how much speaks for any class. The Mahalanobis distance of early
features, averaged over the picture (after K. Lee et al., arXiv 1807.03888), tells how unusual its
colours and textures are. ``python -m bench.familiarity`` measures how well they do together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.data.images import Split
from training.fit.normalise import at_once

FITTED_ON = 10_000  # training images
LEAST_VALIDATION = 50  # images; a share of fewer says little
QUANTILES = 101
SHRINKAGE = 1e-3  # of the mean variance, added to each: keeps the covariance invertible
LEAST_SPREAD = 1e-6


class Familiarity(nn.Module):
    """Logits [n, classes] and early features [n, d] to familiarity float32 [n], from 0 to 1.

    That is the share of validation images with a lower score: 0.03 is less familiar than 97 % of
    them. Fitted on the same for training images, and for validation images.
    """

    mean: Tensor
    whitening: Tensor
    energy_scale: Tensor
    distance_scale: Tensor
    lower: Tensor
    widths: Tensor

    def __init__(self, training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        logits, features = (tensor.double() for tensor in training)
        covariance = torch.cov(features.T, correction=0).reshape(features.shape[1], -1)
        spread = covariance.diagonal().mean().clamp_min(LEAST_SPREAD)
        covariance += SHRINKAGE * spread * torch.eye(len(covariance), dtype=torch.float64)
        # With covariance = L Lᵀ, d² = |L⁻¹ (features - mean)|².
        inverse = torch.linalg.inv(torch.linalg.cholesky(covariance))
        self.register_buffer("mean", features.mean(0).float())
        self.register_buffer("whitening", inverse.T.contiguous().float())
        energy, distance = logits.logsumexp(1), self.distance(features.float()).double()
        for name, sign in (("energy_scale", energy), ("distance_scale", distance)):
            scale = 1 / sign.std(correction=0).clamp_min(LEAST_SPREAD)
            self.register_buffer(name, scale.float())
        levels = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
        quantiles = self.score(*validation).double().quantile(levels)
        self.register_buffer("lower", quantiles[:-1].float())
        self.register_buffer("widths", quantiles.diff().clamp_min(LEAST_SPREAD).float())

    def distance(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distance [n] from the mean of the training images."""
        return ((features - self.mean) @ self.whitening).square().sum(1)

    def score(self, logits: Tensor, features: Tensor) -> Tensor:
        """Energy less distance, [n], each in standard deviations of the training images."""
        energy = logits.logsumexp(1) * self.energy_scale
        return energy - self.distance(features) * self.distance_scale

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        # The cumulative distribution of the validation images, linear between its quantiles.
        steps = (self.score(logits, features)[:, None] - self.lower) / self.widths
        return steps.clamp(0, 1).mean(1)


@contextmanager
def early_features(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what ``layers`` put out, [n, channels, h, w], as means over the picture.

    They are [n, channels], one for each layer, in the order of their calls.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        found.append(output.mean((2, 3)))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] and early features [n, d] for normalised images [n, 3, h, w]."""
    with early_features(network.early_layers()) as found:  # type: ignore[operator]
        logits: Tensor = network(images)
    return logits, torch.cat(found, 1)


def fit_familiarity(
    network: nn.Module, normalise: nn.Module, train: Split, validation: Split
) -> Familiarity | None:
    """Fit it for ``network`` in eval mode; None where validation images are too few."""
    if len(validation) < LEAST_VALIDATION:
        return None
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(train), generator=generator)[:FITTED_ON]

    @torch.no_grad()
    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            with_features(network, normalise(chunk)) for chunk in images.split(at_once(250, images))
        ]
        logits, features = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(features)

    return Familiarity(run(train.images[chosen]), run(validation.images))
