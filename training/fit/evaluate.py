"""Scores of a classifier: top-1, top-5 and cross-entropy."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1]; ``loss`` is the mean cross-entropy in nats, without label smoothing."""

    top1: float
    top5: float
    loss: float
    rows: int


def evaluate(
    logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = 500
) -> Scores:
    """Scores of ``logits`` (uint8 [n, 3, h, w] → float [n, classes]) on all of ``images``."""
    outputs = [logits(chunk).cpu() for chunk in images.split(batch)]
    return score(torch.cat(outputs), labels.cpu())


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Scores of logits (or log-probabilities) [n, classes] against labels [n]."""
    k = min(5, logits.shape[1])
    hits = logits.topk(k, dim=1).indices == labels[:, None]
    return Scores(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(1).double().mean().item(),
        loss=functional.cross_entropy(logits.double(), labels).item(),
        rows=len(labels),
    )
