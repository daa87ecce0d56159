"""What a classifier's graph is worth: probabilities on a split, and figures computed from them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.data.images import Split

BATCH = 250
BINS = 15
Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1]; ``loss`` is the mean cross-entropy in nats; ``ece`` from 15 equal bins."""

    top1: float
    top5: float
    loss: float
    ece: float


def run_classifier(
    graph: Path, split: Split, progress: Callable[[int], None] = lambda _: None
) -> Array:
    """Probabilities float32 [n, classes] that ONNX Runtime gives for all of ``split``."""
    session = _session(graph, threads=0)
    outputs = []
    for images in split.images.split(BATCH):
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        outputs.append(session.run(None, {session.get_inputs()[0].name: pixels})[0])
        progress(len(images))
    return np.concatenate(outputs)


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


def confusion(predicted: Array, labels: Array, classes: int) -> Array:
    """Counts [true class, predicted class]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def difference(first: Array, second: Array, labels: Array) -> dict[str, float]:
    """Accuracy of predictions ``first`` less that of ``second`` on the same rows, in points.

    With the 95 % interval of the mean of the paired differences (normal approximation).
    """
    paired = (first == labels).astype(float) - (second == labels).astype(float)
    half = 1.96 * paired.std(ddof=1) / len(paired) ** 0.5
    mean = paired.mean()
    return {"points": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half)}


def single_image_seconds(graph: Path, runs: int = 100) -> float:
    """Median time of one image on one thread, as one worker of the service computes it."""
    session = _session(graph, threads=1)
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    times = []
    for _ in range(runs + 10):
        started = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: image})
        times.append(time.perf_counter() - started)
    return float(np.median(times[10:]))


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
