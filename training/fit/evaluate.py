"""Scores of a classifier: top-1, top-5, cross-entropy, calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.fit.normalise import at_once

BINS = 15
Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1]; ``loss`` is the mean cross-entropy in nats; ``ece`` from 15 equal bins.

    ``balanced`` is the mean over classes of each one's top-1.
    """

    top1: float
    top5: float
    loss: float
    ece: float
    balanced: float


def evaluate(
    logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = 500
) -> Scores:
    """Scores of ``logits`` (uint8 [n, 3, h, w] → float [n, classes]) on all of ``images``."""
    outputs = torch.cat([logits(chunk).cpu() for chunk in images.split(at_once(batch, images))])
    return score(outputs.double().softmax(1).numpy(), labels.cpu().numpy())


def score(probabilities: Array, labels: Array) -> Scores:
    """Scores of probabilities [n, classes] against labels [n]."""
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Scores(
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(1).mean()),
        loss=float(-np.log(own.clip(1e-12)).mean()),
        ece=expected_calibration_error(reliability(probabilities, labels)),
        balanced=float(np.mean([hits[labels == label, 0].mean() for label in np.unique(labels)])),
    )


def reliability(probabilities: Array, labels: Array) -> list[dict[str, float]]:
    """Per bin of confidence: rows, mean confidence, accuracy. Empty bins are left out."""
    confidence = probabilities.max(1).astype(np.float64)
    correct = probabilities.argmax(1) == labels
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "rows": int((index == number).sum()),
            "confidence": float(confidence[index == number].mean()),
            "accuracy": float(correct[index == number].mean()),
        }
        for number in range(BINS)
        if (index == number).any()
    ]


def expected_calibration_error(bins: list[dict[str, float]]) -> float:
    """Mean of |accuracy − confidence| over the bins, weighted by rows (arXiv 1706.04599)."""
    rows = sum(entry["rows"] for entry in bins)
    return sum(abs(b["accuracy"] - b["confidence"]) * b["rows"] for b in bins) / rows
