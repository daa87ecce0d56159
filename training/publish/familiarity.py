"""How familiar a picture is: a classifier names one of its classes whatever it is shown.

Two signs are added up. The energy of the logits (W. Liu et al., "Energy-based Out-of-distribution
Detection", arXiv 2010.03759) tells how much speaks for any class. The Mahalanobis distance of early
features, averaged over the picture (after K. Lee et al., arXiv 1807.03888), tells how unusual its
colours and textures are. ``python -m bench.familiarity`` measures how well they do together, and
what they cost: with few operators, for each takes a microsecond.
"""

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

    whitening: Tensor
    bias: Tensor
    lower: Tensor
    slopes: Tensor

    def __init__(self, training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        logits, features = (tensor.double() for tensor in training)
        mean = features.mean(0)
        covariance = torch.cov(features.T, correction=0).reshape(len(mean), len(mean))
        spread = covariance.diagonal().mean().clamp_min(LEAST_SPREAD)
        covariance += SHRINKAGE * spread * torch.eye(len(mean), dtype=torch.float64)
        # With covariance = L Lᵀ the distance is |L⁻¹ (features - mean)|.
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        energies = logits.logsumexp(1)
        distances = torch.linalg.vector_norm((features - mean) @ whitening, dim=1)
        # So that both signs weigh alike, the distance gets the standard deviation of the energy.
        whitening *= energies.std(correction=0) / distances.std(correction=0).clamp_min(
            LEAST_SPREAD
        )
        self.register_buffer("whitening", whitening.float().contiguous())
        self.register_buffer("bias", (-mean @ whitening).float())
        levels = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
        quantiles = self.score(*validation).flatten().double().quantile(levels)
        self.register_buffer("lower", quantiles[:-1].float())
        self.register_buffer("slopes", (1 / quantiles.diff().clamp_min(LEAST_SPREAD)).float())

    def score(self, logits: Tensor, features: Tensor) -> Tensor:
        """Energy less distance, [n, 1]."""
        whitened = torch.addmm(self.bias, features, self.whitening)
        distance = torch.linalg.vector_norm(whitened, dim=1, keepdim=True)
        return logits.logsumexp(1, keepdim=True) - distance

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        # The cumulative distribution of the validation images, linear between its quantiles.
        steps = (self.score(logits, features) - self.lower) * self.slopes
        return steps.clamp(0, 1).mean(1)


def with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] and early features [n, d] for normalised images [n, 3, h, w].

    The features are what the network's ``early_layer()`` puts out, averaged over the picture.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        found.append(output.mean((2, 3)))

    hook = network.early_layer().register_forward_hook(keep)  # type: ignore[operator]
    try:
        logits: Tensor = network(images)
    finally:
        hook.remove()
    (features,) = found
    return logits, features


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
