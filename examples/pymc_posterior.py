"""Sample a posterior with PyMC (NUTS), its likelihood a served model with its gradient.

    python examples/pymc_posterior.py http://127.0.0.1:8000 surrogate

The model has one number as its output, the logarithm of the likelihood of an input, and was
published with ``vjp`` or ``gradient``. NUTS needs its gradient some ten times a sample: one request
each, whatever the number of inputs.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pymc
import pytensor.tensor as pt
from pytensor.graph.op import Op

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
from gradserve_client import Function


class LogLikelihood(Op):
    """A served function of a vector, and its gradient, as an operation of PyTensor."""

    itypes, otypes = [pt.dvector], [pt.dscalar]

    def __init__(self, f: Function) -> None:
        self.f = f
        self.gradient = Gradient(f)

    def perform(self, node, inputs, outputs) -> None:  # noqa: ARG002
        """Ask for the value."""
        outputs[0][0] = np.asarray(self.f(inputs[0]))

    def grad(self, inputs, gradients):
        """The gradient, as another operation."""
        return [gradients[0] * self.gradient(inputs[0])]


class Gradient(Op):
    """The gradient."""

    itypes, otypes = [pt.dvector], [pt.dvector]

    def __init__(self, f: Function) -> None:
        self.f = f

    def perform(self, node, inputs, outputs) -> None:  # noqa: ARG002
        """Ask for it."""
        outputs[0][0] = np.asarray(self.f.gradient(inputs[0]))


def main(url: str, name: str, draws: str = "200") -> None:
    """Sample from exp(f(x)) times a wide normal prior."""
    f = Function(url, name)
    (size,) = f.shapes[f.inputs[0]][1:]
    with pymc.Model():
        x = pymc.Normal("x", 0, 3, shape=size)
        pymc.Potential("likelihood", LogLikelihood(f)(x))
        started = time.perf_counter()
        trace = pymc.sample(
            int(draws), tune=int(draws), chains=1, cores=1, random_seed=1, progressbar=False
        )
    samples = trace.posterior["x"].to_numpy()[0]
    print(f"{draws} draws in {time.perf_counter() - started:.1f} s")
    print(f"mean {samples.mean(0).round(2)}, standard deviation {samples.std(0).round(2)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
