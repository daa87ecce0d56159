"""f′ with UM-Bridge: a model whose Gradient is the derivative graph, times the sensitivity.

Run: python -m bench.peers.umbridge_model
https://um-bridge-benchmarks.readthedocs.io/en/docs/umbridge/models.html
"""

import numpy as np
import umbridge

from bench.peers.model import PORT, load_derivative


class Curve(umbridge.Model):
    """n points in, n values out: the Jacobian is diagonal, so Gradient is f′(x)·sens."""

    def __init__(self):
        super().__init__("curve")
        self.derivative = load_derivative("onnx")

    def get_input_sizes(self, config):
        return [config.get("points", 3)]

    def get_output_sizes(self, config):
        return [config.get("points", 3)]

    def gradient(self, out_wrt, in_wrt, parameters, sens, config):  # noqa: ARG002 — UM-Bridge's own signature
        return (self.derivative(np.array(parameters[in_wrt])) * np.array(sens)).tolist()

    def supports_gradient(self):
        return True


if __name__ == "__main__":
    umbridge.serve_models([Curve()], PORT)
