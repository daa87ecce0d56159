"""What every peer shares: reading a picture, and the model as a graph or as an eager network.

The benchmark hands over, in the environment, which graph and which artifact to serve. All peers
answer with the same JSON, the most probable class and its probability.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

BACKEND = os.environ.get("BENCH_BACKEND", "onnx")  # or "eager"
PORT = int(os.environ.get("BENCH_PORT", "8000"))
WORKERS = int(os.environ.get("BENCH_WORKERS", "2"))


def read_image(content: bytes) -> Images:
    """An image file as uint8 [32, 32, 3]: square from the centre, resized with antialiasing."""
    return to_pixels(Image.open(io.BytesIO(content)))


def to_pixels(image: Image.Image) -> Images:
    """The same for a picture that the server has opened already."""
    return np.asarray(ImageOps.fit(image.convert("RGB"), (32, 32), Image.Resampling.BICUBIC))


def answer(probabilities: Probabilities) -> dict[str, Any]:
    """The JSON for one image's probabilities [classes]."""
    index = int(probabilities.argmax())
    return {"index": index, "probability": float(probabilities[index])}


def session(path: str) -> onnxruntime.InferenceSession:
    """One thread a worker, as is best where there are as many workers as cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load_classifier(backend: str = BACKEND) -> Callable[[Images], Probabilities]:
    """A function from images [n, 32, 32, 3] to probabilities [n, classes]."""
    if backend == "eager":
        from bench.peers import eager

        return eager.classifier(Path(os.environ["BENCH_CLASSIFIER"]))
    graph = session(os.environ["BENCH_CLASSIFIER_GRAPH"])
    name = graph.get_inputs()[0].name
    return lambda images: graph.run(None, {name: images})[0]


def load_derivative(backend: str = BACKEND) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """f′ of the curve: x [n] → f′(x) [n]."""
    if backend == "eager":
        from bench.peers import eager

        return eager.derivative(Path(os.environ["BENCH_CURVE"]))
    graph = session(os.environ["BENCH_CURVE_GRAPH"])
    name = graph.get_inputs()[0].name
    return lambda x: graph.run(None, {name: x})[0]
