"""Is a saliency map one of the network? Three checks, before it is published.

- Randomisation (Adebayo et al., "Sanity Checks for Saliency Maps", arXiv 1810.03292): the weights
  are shuffled, layer by layer from the last one. A map of the network changes; an edge detector
  doesn't.
- Completeness (Sundararajan et al., arXiv 1703.01365): integrated gradients add up to the logit at
  the picture less that at the baseline.
- Deletion and insertion (Petsiuk et al., arXiv 1806.07421), by squares of pixels: the class
  vanishes sooner, and appears sooner, where the map says, than in a random order. Single pixels
  don't do: scattered at random they are noise that upsets any network, whatever they show.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.publish.derivatives import TensorFunction, input_gradient

Maps = Callable[[nn.Module], TensorFunction]
"""From a network to its map: (image uint8 [n,h,w,3], class int64 [n]) → [n,h,w]."""

IMAGES = 32
STAGES = 8  # of the randomisation, at most
FEWEST, MOST = 64, 128  # steps of the integral: a minute for a network of 115 M multiply-adds
SQUARES = 8  # along a side
FRACTIONS = 16
ORDERS = 4  # random ones to compare with
# Of the ranks of one map less than half of the variance is explained by the other. A map that
# doesn't depend on the weights has 1. Integrated gradients keep some: they are multiplied by the
# picture, which both maps have in common.
HIGHEST_CORRELATION = 0.5**0.5
LARGEST_GAP = 0.01
LEAST_LIKENESS = 0.95  # of the map and one with as many steps as completeness takes
SERVED = 16  # steps of the map itself
# By how much blurring squares must move the class's probability, so that their order can be judged:
# an untrained network says nearly the same, whatever it sees.
LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class SaliencyFigures:
    """What was found; curves by the share of squares, from none to all, empty if not asked for."""

    images: int
    correlation: list[float]
    """Rank correlation with the map after each stage of randomisation."""
    deletion: list[float]
    deletion_at_random: list[float]
    insertion: list[float]
    insertion_at_random: list[float]
    steps: int | None = None
    """Of the integral whose completeness is ``gap``; None for other maps."""
    gap: float | None = None
    likeness: float | None = None
    """Rank correlation of the map with that integral's."""
    served_gap: float | None = None
    """What the integral with the ``SERVED`` steps of the map itself misses."""

    @property
    def squares_judged(self) -> bool:
        """Whether the squares' order can be judged: the answer depends on the picture."""
        return bool(self.deletion) and self.spread >= LEAST_SPREAD

    @property
    def spread(self) -> float:
        """Of the probability along all four curves."""
        curves = (
            *self.deletion,
            *self.deletion_at_random,
            *self.insertion,
            *self.insertion_at_random,
        )
        return max(curves, default=0.0) - min(curves, default=0.0)

    def failures(self) -> list[str]:
        """In words; none if the map may be published."""
        found = []
        if not self.correlation or self.correlation[-1] > HIGHEST_CORRELATION:
            found.append(
                "it hardly depends on the weights: with all of them random its rank correlation "
                f"is {self.correlation[-1] if self.correlation else 1:.2f}"
            )
        if self.gap is not None and self.gap > LARGEST_GAP:
            found.append(f"integrated gradients miss the logit's difference by {self.gap:.1%}")
        if self.likeness is not None and self.likeness < LEAST_LIKENESS:
            found.append(f"its ranks are not those of the full integral ({self.likeness:.2f})")
        if not self.squares_judged:
            return found
        if mean(self.deletion) >= mean(self.deletion_at_random):
            found.append("deleting where it points is no better than at random")
        if mean(self.insertion) <= mean(self.insertion_at_random):
            found.append("inserting where it points is no better than at random")
        return found

    def as_metrics(self) -> dict[str, Any]:
        """For metrics.json."""
        return asdict(self) | {"spread": self.spread, "failures": self.failures()}


def check(
    network: nn.Module,
    prepare: TensorFunction,
    maps: Maps,
    images: Tensor,
    *,
    integrated: bool,
    photographs: bool = True,
    seed: int = 0,
) -> SaliencyFigures:
    """Check the map on ``images`` uint8 [n, side, side, 3], each for the class that it is given.

    ``network`` maps what ``prepare`` makes of images to logits [n, classes], in eval mode without
    gradients. ``integrated`` says that the map is of integrated gradients from the zero input.
    Only ``photographs``, such as the network knows, have something to delete or insert.
    """
    x = prepare(images)
    with torch.no_grad():
        labels = network(x).argmax(1)
    shown = _in_parts(maps(network), images, labels)
    generator = torch.Generator().manual_seed(seed)
    correlation = [
        rank_correlation(shown, _in_parts(maps(stage), images, labels))
        for stage in _randomised(network, generator)
    ]
    steps = gap = likeness = served_gap = None
    if integrated:
        served_gap, _ = _integral(network, x, labels, SERVED)
        steps, gap, full = _complete(network, x, labels)
        likeness = rank_correlation(shown, full.square().sum(1).sqrt())
    curves = _squares(network, x, labels, shown, generator) if photographs else [[], [], [], []]
    deletion, deletion_at_random, insertion, insertion_at_random = curves
    return SaliencyFigures(
        images=len(images),
        correlation=correlation,
        deletion=deletion,
        deletion_at_random=deletion_at_random,
        insertion=insertion,
        insertion_at_random=insertion_at_random,
        steps=steps,
        gap=gap,
        likeness=likeness,
        served_gap=served_gap,
    )


def _squares(
    network: nn.Module, x: Tensor, labels: Tensor, shown: Tensor, generator: torch.Generator
) -> list[list[float]]:
    """Deletion as the map says and at random, then insertion likewise."""
    side = x.shape[-1]
    squares = min(SQUARES, side)
    pooled = functional.adaptive_avg_pool2d(shown[:, None], squares)[:, 0]
    blurred = _blurred(x)
    chance = [torch.rand(pooled.shape, generator=generator) for _ in range(ORDERS)]

    def curve(scores: Tensor, start: Tensor, end: Tensor) -> list[float]:
        return _curve(network, labels, scores, start, end)

    def average(start: Tensor, end: Tensor) -> list[float]:
        curves = [curve(scores, start, end) for scores in chance]
        return [mean(values) for values in zip(*curves, strict=True)]

    return [
        curve(pooled, x, blurred),
        average(x, blurred),
        curve(pooled, blurred, x),
        average(blurred, x),
    ]


def mean(values: Any) -> float:
    """Of a curve: the area under it, its points being evenly spaced."""
    return sum(values) / len(values)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, of two maps [n, h, w] image by image; their mean. A constant map has 0."""
    ranks = []
    for maps in (first, second):
        flat = maps.flatten(1)
        rank = flat.argsort(dim=1, stable=True).argsort(dim=1).double()
        varied = (flat.amax(1) > flat.amin(1)).double()
        ranks.append(functional.normalize(rank - rank.mean(1, keepdim=True)) * varied[:, None])
    return float((ranks[0] * ranks[1]).sum(1).mean())


def _in_parts(explain: TensorFunction, images: Tensor, labels: Tensor) -> Tensor:
    """A map is a batch of many copies already: few images at a time."""
    pairs = zip(images.split(8), labels.split(8), strict=True)
    return torch.cat([explain(image, label).detach() for image, label in pairs])


def _randomised(network: nn.Module, generator: torch.Generator) -> Any:
    """The network with ever more layers' numbers shuffled, from the last one on."""
    random = copy.deepcopy(network)
    layers = [
        tensors
        for module in random.modules()
        if (
            tensors := [
                tensor
                for tensor in (*module._parameters.values(), *module._buffers.values())
                if tensor is not None and tensor.is_floating_point()
            ]
        )
    ]
    layers.reverse()
    stages = min(STAGES, len(layers))
    for stage in range(stages):
        begin, end = (len(layers) * part // stages for part in (stage, stage + 1))
        for tensor in (each for layer in layers[begin:end] for each in layer):
            order = torch.randperm(tensor.numel(), generator=generator)
            tensor.data = tensor.data.flatten()[order].reshape(tensor.shape)
        yield random


def _complete(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[int, float, Tensor]:
    """As many steps as it takes, the gap they leave, and the integral [n, c, h, w]."""
    steps = FEWEST
    while True:
        gap, integral = _integral(network, x, labels, steps)
        if gap < LARGEST_GAP or steps >= MOST:
            return steps, gap, integral
        steps *= 2


def _integral(network: nn.Module, x: Tensor, labels: Tensor, steps: int) -> tuple[float, Tensor]:
    """The mean gap as a share of the mean difference, and the integral [n, c, h, w]."""
    with torch.no_grad():
        ends = network(x) - network(torch.zeros_like(x))
    wanted = ends.gather(1, labels[:, None])[:, 0]
    total = torch.zeros_like(x)
    for step in range(steps):
        total += input_gradient(network, x * ((step + 0.5) / steps), labels)
    integral = x * total / steps
    missing = (integral.sum((1, 2, 3)) - wanted).abs().mean()
    return float(missing / wanted.abs().mean().clamp_min(1e-12)), integral


def _curve(
    network: nn.Module, labels: Tensor, scores: Tensor, start: Tensor, end: Tensor
) -> list[float]:
    """Mean probability of the class while squares of ``start`` become those of ``end``.

    Those with the largest ``scores`` [n, squares, squares] come first.
    """
    count = scores[0].numel()
    ranks = scores.flatten(1).argsort(1, descending=True).argsort(1).reshape(scores.shape)
    found = []
    for part in range(FRACTIONS + 1):
        chosen = (ranks < round(count * part / FRACTIONS)).float()[:, None]
        mask = functional.interpolate(chosen, start.shape[-2:]).bool()
        with torch.no_grad():
            probabilities = network(torch.where(mask, end, start)).softmax(1)
        found.append(float(probabilities.gather(1, labels[:, None]).mean()))
    return found


def _blurred(x: Tensor) -> Tensor:
    """Without edges: a Gaussian of a sixth of the side."""
    side = x.shape[-1]
    reach = max(1, side // 4)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype)
    weights = torch.exp(-(at**2) / (2 * (side / 6) ** 2))
    line = (weights / weights.sum()).reshape(1, 1, 1, -1).expand(x.shape[1], 1, 1, -1)
    for kernel, padding in ((line, (reach, reach, 0, 0)), (line.mT, (0, 0, reach, reach))):
        padded = functional.pad(x, padding, mode="reflect")
        x = functional.conv2d(padded, kernel, groups=x.shape[1])
    return x
