"""How often the intervals of f and f′ hold the truth, and how wide they are.

    python -m bench.coverage [--sets 1000] [--network-sets 50] [--methods curve-gp,curve-poly]
                             [--only sin,exp] [--noise 0.02 …] [--keep coverage.csv] [--minutes 20]

Figures of every data set are kept in a file as they are made; the same command goes on from there,
with more sets or other methods too.

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
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.curves import FUNCTIONS, Known
from bench.kept import Kept, Row, add_arguments
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


CASE = ("function", "noise", "method")
COLUMNS = (*CASE, "set", "covered", "width", "slope_covered", "slope_width")


def measure(known: Known, noise: float, method: str, number: int) -> list[float]:
    """One method on one data set: coverage and width of f, and of f′ where it gives that."""
    everywhere = np.linspace(known.low, known.high, 1001)
    generator = np.random.default_rng([number, round(1e6 * noise)])
    x = np.sort(generator.uniform(known.low, known.high, int(generator.integers(20, 201))))
    y = known.value(x) + noise * known.height * generator.normal(size=len(x))
    at = generator.uniform(x.min(), x.max(), PLACES)
    band = METHODS[method](x, y, at)
    if band is None:
        return []
    pairs = [(band.value, band.value_half, known.value)]
    if band.slope is not None and band.slope_half is not None:
        pairs.append((band.slope, band.slope_half, known.slope))
    figures = []
    for found, half, truth in pairs:
        figures.append(float(np.mean(np.abs(found - truth(at)) <= half)))
        figures.append(2 * float(np.mean(half)) / float(np.ptp(truth(everywhere))))
    return figures


def run(
    keep: Path, functions: Sequence[str], noises: Sequence[float], sets: dict[str, int], end: float
) -> list[Row]:
    """Measure what ``keep`` lacks, until time.monotonic() is ``end``; all rows it then has.

    Every case has its first data set before any has its second, so that a run that is cut short
    still compares like with like.
    """
    kept = Kept(keep, COLUMNS, (*CASE, "set"))
    for number in range(max(sets.values(), default=0)):
        for name, noise, method in itertools.product(functions, noises, sets):
            key = (name, str(noise), method, str(number))
            if number >= sets[method] or kept.has(*key):
                continue
            if time.monotonic() >= end:
                return kept.rows
            kept.add(*key, *map(repr, measure(FUNCTIONS[name], noise, method, number)))
    return kept.rows


def tables(rows: Sequence[Row]) -> str:
    """Markdown: a row for each function, noise and method, then the averages by method."""
    cases: dict[tuple[str, ...], list[list[float]]] = {}
    for row in rows:
        figures = [float(row[name]) for name in COLUMNS[len(CASE) + 1 :] if row[name]]
        if figures:
            cases.setdefault(tuple(row[name] for name in CASE), []).append(figures)
    lines = [
        "| f | noise | fit | sets | f covered | width | f′ covered | width |",
        "|---|---:|---|---:|" + "---:|" * 4,
    ]
    totals: dict[str, list[Array]] = {}
    for (name, noise, method), found in cases.items():
        figures = np.array(found)  # [sets, 2 or 4]
        mean, count = figures.mean(0), len(figures)
        error = figures.std(0, ddof=1) / np.sqrt(count) if count > 1 else np.full_like(mean, np.nan)
        cells = [
            f"{100 * mean[k]:.1f} ± {100 * error[k]:.1f} | {mean[k + 1]:.3f}"
            if k < len(mean)
            else "– | –"
            for k in (0, 2)
        ]
        lines.append(f"| {name} | {float(noise):.0%} | {method} | {count} | {' | '.join(cells)} |")
        totals.setdefault(method, []).append(mean)
    lines += [
        "",
        "| fit | cases | f: mean | least | width | f′: mean | least | width |",
        "|---|---:|" + "---:|" * 6,
    ]
    for method, means in totals.items():
        all_of = np.array(means)
        cells = [
            f"{100 * all_of[:, k].mean():.1f} | {100 * all_of[:, k].min():.1f} | "
            f"{all_of[:, k + 1].mean():.3f}"
            for k in range(0, all_of.shape[1], 2)
        ]
        lines.append(f"| {method} | {len(means)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print what there is."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--sets", type=int, default=1000, help="data sets of each case")
    parser.add_argument("--network-sets", type=int, default=50, help="those of curve-mlp")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.02, 0.05, 0.15])
    parser.add_argument("--only", default=None, help="functions, with commas between")
    parser.add_argument("--methods", default=None, help="with commas between")
    add_arguments(parser, Path("coverage.csv"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    methods = given.methods.split(",") if given.methods else list(METHODS)
    sets = {
        method: given.network_sets if method == "curve-mlp" else given.sets for method in methods
    }
    end = time.monotonic() + 60 * given.minutes
    functions = given.only.split(",") if given.only else STUDIED
    rows = run(given.keep, functions, given.noise, sets, end)
    print("coverage of the 95 % interval in per cent ± its standard error; width, of the range\n")
    print(tables(rows))


if __name__ == "__main__":
    main()
