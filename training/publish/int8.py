"""An int8 variant of a graph: static quantisation, calibrated on training images."""

import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from contract.agreement import LOOSEST

CALIBRATION_ROWS = 512
LEAST_BATCH = 16
# Other processors add int8 products in another order and width: the same graph may be off by
# somewhat more there, but not by a multiple.
MARGIN, SLACK = 2.0, 0.02


def tolerance(worst: float, references: Iterable[NDArray[Any]]) -> float:
    """How far a variant may be off where it is loaded, if it is off by ``worst`` here.

    At most what the service accepts of the largest magnitude of ``references``, its outputs.
    """
    largest = max(float(np.max(np.abs(each))) for each in references)
    return min(round(MARGIN * worst + SLACK, 3), LOOSEST["int8"] * largest)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images in batches of one size, which is what the histograms need."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        size = min(batch_size(images), len(images))
        self._batches: Iterator[dict[str, Any]] = iter(
            [
                {name: images[start : start + size]}
                for start in range(0, len(images) - size + 1, size)
            ]
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None at the end."""
        return next(self._batches, None)


def batch_size(images: NDArray[np.uint8]) -> int:
    """As many as are the pixels of 32 images of 32 × 32, at least ``LEAST_BATCH``.

    The calibrator's bins are as wide as the first batch's values ask for. Where those of a single
    image are all small, later ones take millions of bins, and gigabytes: 18 GB were measured.
    """
    return max(LEAST_BATCH, 32 * 1024 // (images.shape[1] * images.shape[2]))


def quantise(graph: Path, images: NDArray[np.uint8], target: Path) -> int:
    """Write the int8 variant of ``graph`` (one image input, [n, h, w, 3]) to ``target``.

    Returns how many of the images it was calibrated on: those that make whole batches.

    Convolutions and dense layers get int8 weights, one scale a channel, and uint8 activations
    (QDQ format) whose range leaves out the outermost 0.005 % of what ``images`` give: the few
    largest values would make the steps coarse for all others. The first convolution stays in fp32:
    it sees the raw picture, costs little and loses most. So does what only further outputs need,
    such as how familiar a picture is: a distance squares the rounding.
    """
    model_input = onnx.load(graph).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
        body = onnx.load(prepared).graph
        convolutions = [node.name for node in body.node if node.op_type == "Conv"]
        quantize_static(
            str(prepared),
            str(target),
            _Batches(model_input, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "MaxPool", "Add", "Relu"],
            nodes_to_exclude=[*convolutions[:1], *_not_for_the_first_output(body)],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": 99.995},
        )
    size = min(batch_size(images), len(images))
    return len(images) // size * size


def _not_for_the_first_output(body: onnx.GraphProto) -> list[str]:
    """Names of the nodes that the graph's first output doesn't need."""
    needed = {body.output[0].name}
    others = []
    for node in reversed(body.node):  # a graph's nodes are in the order of their computation
        if needed.isdisjoint(node.output):
            others.append(node.name)
        else:
            needed.update(node.input)
    return others


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser prints its progress and warns on the root logger; neither is for users."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
