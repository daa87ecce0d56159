"""How well each fit of a curve knows the slope: worst error of f′ on functions that are known.

    python -m bench.curves [--noise 0 0.02] [--seeds 20] [--only exp,sin]
                           [--keep curves.csv] [--minutes 20]

The figure of every fit is kept in a file as it is made; the same command goes on from there. All
of it takes about half an hour of one core, nearly all for the network.

40 points of each function, evenly spaced; noise is normal, its standard deviation in units of the
range of y. The figure is the largest error of f′ over the inner 90 % of the range of x, in per cent
of the range of the true slope there is over the whole range: the median over the seeds. Beside the
project's three fits stand scikit-learn's Gaussian process (RBF plus white noise, five restarts),
SciPy's smoothing spline (weight of smoothness by generalised cross-validation) and
``numpy.polyfit`` of degree 9, a usual choice. Needs bench/requirements-curves.txt and PyTorch.
"""

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.kept import Kept, Row, add_arguments
from training.fit.mlp import fit_mlp
from training.fit.polynomial import fit_polynomial
from training.fit.process import fit_process
from training.publish.derivatives import curve_derivative, frozen

Array = NDArray[np.float64]
POINTS = 40
INNER = 0.9
STEP = 1e-5
COLUMNS = ("function", "noise", "fit", "seed", "error")


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


def run(
    keep: Path, functions: Sequence[str], noises: Sequence[float], seeds: int, end: float
) -> list[Row]:
    """Measure what ``keep`` lacks, until time.monotonic() is ``end``; all rows it then has.

    Every case has its first seed before any has its second.
    """
    kept = Kept(keep, COLUMNS, COLUMNS[:-1])
    cases = list(itertools.product(range(seeds), functions, noises, FITTERS))
    for count, (seed, name, noise, fitter) in enumerate(cases, 1):
        key = (name, str(noise), fitter, str(seed))
        if kept.has(*key):
            continue
        if time.monotonic() >= end:
            break
        kept.add(*key, repr(worst_error(FUNCTIONS[name], FITTERS[fitter], noise, seed)))
        if sys.stderr.isatty() or count % len(FITTERS) == 0:
            print(f"\r{count} of {len(cases)} fits", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return kept.rows


def tables(
    rows: Sequence[Row], functions: Sequence[str], noises: Sequence[float], seeds: int
) -> str:
    """Markdown: for each noise, a row a function and a column a fit: medians over the seeds."""
    errors: dict[tuple[str, float, str], list[float]] = {}
    for row in rows:
        if int(row["seed"]) < seeds:
            case = (row["function"], float(row["noise"]), row["fit"])
            errors.setdefault(case, []).append(float(row["error"]))
    lines = []
    for noise in noises:
        counts = [len(errors.get((name, noise, fit), ())) for name in functions for fit in FITTERS]
        few = "" if min(counts) == seeds else f", so far of {min(counts)} to {max(counts)}"
        lines += [
            f"noise {noise:.0%} of the range; median of {seeds} seeds{few}; per cent",
            "",
            "| f | " + " | ".join(FITTERS) + " |",
            "|---|" + "---:|" * len(FITTERS),
        ]
        for name in functions:
            found = [errors.get((name, noise, fit), [float("nan")]) for fit in FITTERS]
            cells = " | ".join(f"{100 * float(np.median(each)):.2f}" for each in found)
            lines.append(f"| {name} | {cells} |".replace("|x|", "\\|x\\|"))
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one table for each noise."""
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default=None, help="functions, with commas between")
    add_arguments(parser, Path("curves.csv"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    functions = given.only.split(",") if given.only else list(FUNCTIONS)
    end = time.monotonic() + 60 * given.minutes
    rows = run(given.keep, functions, given.noise, given.seeds, end)
    print(tables(rows, functions, given.noise, given.seeds))


if __name__ == "__main__":
    main()
