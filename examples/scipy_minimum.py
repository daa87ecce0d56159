"""Find the lowest point of a served function with SciPy, by its exact gradient.

    python examples/scipy_minimum.py http://127.0.0.1:8000 bowl

The model has one number as its output and was published with ``gradient`` (and ``hvp``, for
Newton's method). The gradient costs what a prediction costs; SciPy's own would take a request for
each input.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
from gradserve_client import Function


def main(url: str, name: str) -> None:
    """Minimise the model ``name`` from a fixed start, with BFGS and with Newton's method."""
    f = Function(url, name)
    start = np.full(f.shapes[f.inputs[0]][1:], 0.5)
    found = minimize(f, start, jac=f.gradient)
    print(f"BFGS: f = {found.fun:.6g} at {found.x.round(6)}, {found.nfev} requests for f")
    if "hvp_" + f.inputs[0] in f.shapes:
        found = minimize(f, start, jac=f.gradient, hessp=f.hvp, method="trust-krylov")
        print(f"Newton: f = {found.fun:.6g} at {found.x.round(6)}, {found.nhev} with the Hessian")


if __name__ == "__main__":
    main(*sys.argv[1:])
