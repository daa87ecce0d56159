"""Measure a classifier's graph: its answers on a split, compared with others, and its time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.data.images import Split
from training.fit.normalise import at_once

BATCH = 250
Array = NDArray[Any]


def run_classifier(
    graph: Path, split: Split, progress: Callable[[int], None] = lambda _: None
) -> Array:
    """Probabilities float32 [n, classes] that ONNX Runtime gives for all of ``split``."""
    session = _session(graph, threads=0)
    outputs = []
    for images in split.images.split(at_once(BATCH, split.images)):
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        outputs.append(session.run(None, {session.get_inputs()[0].name: pixels})[0])
        progress(len(images))
    return np.concatenate(outputs)


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
    """Processor time of one image on one thread, as one worker of the service computes it.

    Not the time on the clock: on a busy machine that is mostly waiting.
    """
    session = _session(graph, threads=1)
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    feed = {session.get_inputs()[0].name: image}
    for _ in range(10):
        session.run(None, feed)
    started = time.process_time()
    for _ in range(runs):
        session.run(None, feed)
    seconds = time.process_time() - started
    return max(seconds, time.get_clock_info("process_time").resolution) / runs


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
