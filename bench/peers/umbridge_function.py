"""A published function with UM-Bridge's own server: its value and its vjp, the same ONNX files.

Run: python -m bench.peers.umbridge_function ARTIFACT PORT
https://um-bridge-benchmarks.readthedocs.io/en/docs/umbridge/models.html
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import umbridge


def session(path):
    """The graph on one thread, as a worker of ours runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Small(umbridge.Model):
    """3 inputs, 2 outputs."""

    def __init__(self, folder):
        super().__init__("small")
        self.value, self.vjp = session(folder / "value.onnx"), session(folder / "vjp.onnx")

    def get_input_sizes(self, config):  # noqa: ARG002 — UM-Bridge's own signatures
        return [3]

    def get_output_sizes(self, config):  # noqa: ARG002
        return [2]

    def __call__(self, parameters, config):  # noqa: ARG002
        return self.value.run(["y"], {"x": np.array(parameters)})[0].tolist()

    def gradient(self, out_wrt, in_wrt, parameters, sens, config):  # noqa: ARG002
        given = {"x": np.array(parameters), "cotangent_y": np.array([[sens]], float)}
        return self.vjp.run(["vjp_x"], given)[0][0, 0].tolist()

    def supports_evaluate(self):
        return True

    def supports_gradient(self):
        return True


if __name__ == "__main__":
    umbridge.serve_models([Small(Path(sys.argv[1]))], int(sys.argv[2]))
