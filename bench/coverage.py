"""How often the intervals of f and f′ hold the truth, and how wide they are.

    python -m bench.coverage [--sets 1000] [--network-sets 50] [--only sin,exp] [--noise 0.02 …]

Eight functions that are known, three noises, data sets of 20 to 200 points at random x. For each
data set: the share of 20 random places inside at which the 95 % interval holds the truth, and the
interval's mean width in units of the range of the truth. The standard error of a coverage is that
over the data sets, which are independent; the places of one aren't.

Beside the project's three fits: scikit-learn's Gaussian process (f alone: it gives no derivative),
statsmodels' least squares with a polynomial of the degree that leave-one-out chooses, and a
bootstrap of residuals (100 refits of that polynomial). Needs bench/requirements-curves.txt and
PyTorch.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.curves import FUNCTIONS, Known
from contract.intervals import quantile
from training.fit.fitted import Fitted
from training.fit.mlp import fit_mlp
from training.fit.polynomial import fit_polynomial
from training.fit.process import fit_process
from training.publish.derivatives import curve_derivative, frozen

Array = NDArray[np.float64]
LEVEL = 0.95
PLACES = 20
REFITS = 100
STUDIED = ("sin", "exp", "logistic", "Runge", "x³ − x", "x sin x", "bump", "log(1 + x)")


@dataclass(frozen=True)
class Band:
    """Estimates and half widths of their intervals; of f′ None where there is none."""

    value: Array
    value_half: Array
    slope: Array | None
    slope_half: Array | None


def _ours(fit: Fitted, at: Array) -> Band | None:
    if fit.deviation is None:
        return None
    x = torch.from_numpy(at)
    network, deviation = frozen(fit.network), frozen(fit.deviation)
    reach = quantile(LEVEL, fit.degrees_of_freedom)
    return Band(
        network(x).numpy(),
        reach * deviation(x, 0).numpy(),
        curve_derivative(network, 1)(x).numpy(),
        reach * deviation(x, 1).numpy(),
    )


def by_sklearn(x: Array, y: Array, at: Array) -> Band:
    """Its standard deviation of f: that of a new point, less the noise that it found."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1, (1e-3, 1e5)) * RBF(1, (1e-2, 1e2)) + WhiteKernel(1e-3, (1e-10, 10))
    regressor = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0
    ).fit(x[:, None], y)
    mean, deviation = regressor.predict(at[:, None], return_std=True)
    noise = regressor.kernel_.k2.noise_level * float(np.var(y))
    own = np.sqrt(np.maximum(deviation**2 - noise, 0))
    return Band(mean, quantile(LEVEL) * own, None, None)


def by_statsmodels(x: Array, y: Array, at: Array) -> Band:
    """Ordinary least squares: confidence intervals of the mean, and of its derivative."""
    import statsmodels.api as sm

    degree = fit_polynomial(x, y).degree
    centre, half = (x.max() + x.min()) / 2, np.ptp(x) / 2
    found = sm.OLS(y, np.vander((x - centre) / half, degree + 1, increasing=True)).fit()
    t = (at - centre) / half
    rows = np.vander(t, degree + 1, increasing=True)
    slopes = np.zeros_like(rows)
    for power in range(1, degree + 1):
        slopes[:, power] = power * t ** (power - 1) / half
    reach = quantile(LEVEL, found.df_resid)
    covariance = found.cov_params()
    halves = [
        reach * np.sqrt(np.einsum("ni,ij,nj->n", each, covariance, each)) for each in (rows, slopes)
    ]
    return Band(rows @ found.params, halves[0], slopes @ found.params, halves[1])


def by_bootstrap(x: Array, y: Array, at: Array) -> Band:
    """Quantiles of refits to resampled residuals, scaled for the parameters used."""
    generator = np.random.default_rng(0)
    degree = fit_polynomial(x, y).degree
    low, high = x.min(), x.max()
    basis = np.polynomial.Chebyshev
    fitted = basis.fit(x, y, degree, domain=[low, high])
    residual = (y - fitted(x)) * np.sqrt(len(x) / (len(x) - degree - 1))
    values, slopes = [], []
    for _ in range(REFITS):
        again = fitted(x) + generator.choice(residual - residual.mean(), len(x))
        refitted = basis.fit(x, again, degree, domain=[low, high])
        values.append(refitted(at))
        slopes.append(refitted.deriv()(at))
    tail = (1 - LEVEL) / 2
    bands = [np.quantile(np.array(each), [tail, 1 - tail], axis=0) for each in (values, slopes)]
    return Band(
        bands[0].mean(0),
        np.ptp(bands[0], axis=0) / 2,
        bands[1].mean(0),
        np.ptp(bands[1], axis=0) / 2,
    )


METHODS: dict[str, Callable[[Array, Array, Array], Band | None]] = {
    "curve-gp": lambda x, y, at: _ours(fit_process(x, y), at),
    "curve-poly": lambda x, y, at: _ours(fit_polynomial(x, y), at),
    "curve-mlp": lambda x, y, at: _ours(fit_mlp(x, y, 0), at),
    "scikit-learn GP": by_sklearn,
    "statsmodels": by_statsmodels,
    "bootstrap": by_bootstrap,
}


@dataclass(frozen=True)
class Measured:
    """Coverage of f and f′ [sets, 2] and widths [sets, 2], a row for each data set."""

    covered: Array
    width: Array


def measure(
    known: Known, noise: float, method: Callable[[Array, Array, Array], Band | None], sets: int
) -> Measured:
    """One method on one function at one noise."""
    everywhere = np.linspace(known.low, known.high, 1001)
    heights = (np.ptp(known.value(everywhere)), np.ptp(known.slope(everywhere)))
    covered, widths = [], []
    for number in range(sets):
        generator = np.random.default_rng([number, round(1e6 * noise)])
        x = np.sort(generator.uniform(known.low, known.high, int(generator.integers(20, 201))))
        y = known.value(x) + noise * known.height * generator.normal(size=len(x))
        at = generator.uniform(x.min(), x.max(), PLACES)
        band = method(x, y, at)
        if band is None:
            continue
        pairs = [(band.value, band.value_half, known.value(at), heights[0])]
        if band.slope is not None and band.slope_half is not None:
            pairs.append((band.slope, band.slope_half, known.slope(at), heights[1]))
        covered.append([np.mean(np.abs(found - truth) <= half) for found, half, truth, _ in pairs])
        widths.append([2 * float(np.mean(half)) / height for _, half, _, height in pairs])
    return Measured(np.array(covered), np.array(widths))


def main() -> None:
    """Print a row for each function, noise and method, then the averages."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--network-sets", type=int, default=50)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.02, 0.05, 0.15])
    parser.add_argument("--only", default=None, help="functions, with commas between")
    parser.add_argument("--methods", default=None, help="with commas between")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    functions = arguments.only.split(",") if arguments.only else STUDIED
    methods = arguments.methods.split(",") if arguments.methods else list(METHODS)
    print("coverage of the 95 % interval in per cent ± its standard error; width, of the range\n")
    print(
        "| f | noise | fit | f covered | width | f′ covered | width |\n|---|---:|---|" + "---:|" * 4
    )
    totals: dict[str, list[tuple[Array, Array]]] = {}
    for name in functions:
        for noise in arguments.noise:
            for method in methods:
                sets = arguments.network_sets if method == "curve-mlp" else arguments.sets
                found = measure(FUNCTIONS[name], noise, METHODS[method], sets)
                mean, width = found.covered.mean(0), found.width.mean(0)
                error = found.covered.std(0, ddof=1) / np.sqrt(len(found.covered))
                cells = [
                    f"{100 * mean[k]:.1f} ± {100 * error[k]:.1f} | {width[k]:.3f}"
                    if k < len(mean)
                    else "– | –"
                    for k in (0, 1)
                ]
                print(f"| {name} | {noise:.0%} | {method} | {' | '.join(cells)} |", flush=True)
                totals.setdefault(method, []).append((mean, width))
    print("\n| fit | f: mean | least | width | f′: mean | least | width |\n|---|" + "---:|" * 6)
    for method, rows in totals.items():
        coverage = np.array([row[0] for row in rows])
        widths = np.array([row[1] for row in rows])
        cells = [
            f"{100 * coverage[:, k].mean():.1f} | {100 * coverage[:, k].min():.1f} | "
            f"{widths[:, k].mean():.3f}"
            for k in range(coverage.shape[1])
        ]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
