"""How well each fit of a curve knows the slope: worst error of f′ on functions that are known.

    python -m bench.curves [--noise 0 0.02] [--seeds 20] [--only exp,sin]

40 points of each function, evenly spaced; noise is normal, its standard deviation in units of the
range of y. The figure is the largest error of f′ over the inner 90 % of the range of x, in per cent
of the range of the true slope there is over the whole range: the median over the seeds. Beside the
project's three fits stand scikit-learn's Gaussian process (RBF plus white noise, five restarts),
SciPy's smoothing spline (weight of smoothness by generalised cross-validation) and
``numpy.polyfit`` of degree 9, a usual choice. Needs bench/requirements-curves.txt and PyTorch.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.fit.mlp import fit_mlp
from training.fit.polynomial import fit_polynomial
from training.fit.process import fit_process
from training.publish.derivatives import curve_derivative, frozen

Array = NDArray[np.float64]
POINTS = 40
INNER = 0.9
STEP = 1e-5


@dataclass(frozen=True)
class Known:
    """A function on an interval, with its derivative."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    low: float
    high: float

    @property
    def height(self) -> float:
        """The range of its values."""
        return float(np.ptp(self.value(np.linspace(self.low, self.high, 1001))))


FUNCTIONS = {
    "exp": Known(np.exp, np.exp, -1, 3),
    "sin": Known(np.sin, np.cos, -3, 3),
    "cos 2x": Known(lambda x: np.cos(2 * x), lambda x: -2 * np.sin(2 * x), -2, 2),
    "tanh 3x": Known(lambda x: np.tanh(3 * x), lambda x: 3 / np.cosh(3 * x) ** 2, -2, 2),
    "Runge": Known(lambda x: 1 / (1 + 25 * x**2), lambda x: -50 * x / (1 + 25 * x**2) ** 2, -1, 1),
    "|x|^1.5": Known(
        lambda x: np.abs(x) ** 1.5, lambda x: 1.5 * np.sign(x) * np.sqrt(np.abs(x)), -1, 1
    ),
    "logistic": Known(
        lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, -6, 6
    ),
    "x³ − x": Known(lambda x: x**3 - x, lambda x: 3 * x**2 - 1, -2, 2),
    "log(1 + x)": Known(np.log1p, lambda x: 1 / (1 + x), 0, 5),
    "√(1 + x²)": Known(lambda x: np.sqrt(1 + x**2), lambda x: x / np.sqrt(1 + x**2), -3, 3),
    "bump": Known(lambda x: np.exp(-(x**2)), lambda x: -2 * x * np.exp(-(x**2)), -3, 3),
    "x sin x": Known(lambda x: x * np.sin(x), lambda x: np.sin(x) + x * np.cos(x), 0, 8),
}


def by_network(x: Array, y: Array, at: Array, seed: int) -> Array:
    """This project's ``curve-mlp``."""
    return _slope(fit_mlp(x, y, seed).network, at)


def by_process(x: Array, y: Array, at: Array, seed: int) -> Array:  # noqa: ARG001
    """This project's ``curve-gp``."""
    return _slope(fit_process(x, y).network, at)


def by_polynomial(x: Array, y: Array, at: Array, seed: int) -> Array:  # noqa: ARG001
    """This project's ``curve-poly``."""
    return _slope(fit_polynomial(x, y).network, at)


def _slope(network: torch.nn.Module, at: Array) -> Array:
    found: Array = curve_derivative(frozen(network), 1)(torch.from_numpy(at)).numpy()
    return found


def by_sklearn(x: Array, y: Array, at: Array, seed: int) -> Array:
    """scikit-learn gives no derivative: central differences of its mean."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1, (1e-3, 1e5)) * RBF(1, (1e-2, 1e2)) + WhiteKernel(1e-3, (1e-10, 10))
    regressor = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=5, random_state=seed
    ).fit(x[:, None], y)
    step = STEP * np.ptp(x)
    return (regressor.predict((at + step)[:, None]) - regressor.predict((at - step)[:, None])) / (
        2 * step
    )


def by_spline(x: Array, y: Array, at: Array, seed: int) -> Array:  # noqa: ARG001
    """scipy.interpolate.make_smoothing_spline."""
    from scipy.interpolate import make_smoothing_spline

    found: Array = make_smoothing_spline(x, y).derivative()(at)
    return found


def by_polyfit(x: Array, y: Array, at: Array, seed: int) -> Array:  # noqa: ARG001
    """numpy.polyfit, degree 9."""
    return np.polyval(np.polyder(np.polyfit(x, y, 9)), at)


FITTERS = {
    "curve-mlp": by_network,
    "curve-gp": by_process,
    "curve-poly": by_polynomial,
    "scikit-learn GP": by_sklearn,
    "SciPy spline": by_spline,
    "polyfit 9": by_polyfit,
}


def worst_error(known: Known, fitter: Callable[..., Array], noise: float, seed: int) -> float:
    """Of f′, over the inner part of the range, in units of the true slope's range."""
    x = np.linspace(known.low, known.high, POINTS)
    generator = np.random.default_rng(seed)
    y = known.value(x) + noise * known.height * generator.normal(size=POINTS)
    margin = (1 - INNER) / 2 * (known.high - known.low)
    at = np.linspace(known.low + margin, known.high - margin, 301)
    scale = np.ptp(known.slope(np.linspace(known.low, known.high, 1001)))
    return float(np.abs(fitter(x, y, at, seed) - known.slope(at)).max() / scale)


def main() -> None:
    """Print one table for each noise."""
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default=None, help="functions, with commas between")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = arguments.only.split(",") if arguments.only else list(FUNCTIONS)
    for noise in arguments.noise:
        print(f"\nnoise {noise:.0%} of the range; median of {arguments.seeds} seeds; per cent\n")
        print("| f | " + " | ".join(FITTERS) + " |\n|---|" + "---:|" * len(FITTERS))
        for name in chosen:
            cells = []
            for fitter in FITTERS.values():
                errors = [
                    worst_error(FUNCTIONS[name], fitter, noise, seed)
                    for seed in range(arguments.seeds)
                ]
                cells.append(f"{100 * float(np.median(errors)):.2f}")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
