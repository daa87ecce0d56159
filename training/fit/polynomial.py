"""Fit a polynomial by least squares; leave-one-out error chooses its degree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from numpy.polynomial import Polynomial as NumpyPolynomial

from training.errors import JobError
from training.fit.fitted import Array, Fitted, mean_squared_error
from training.networks.curve import Polynomial, centre_and_half
from training.networks.deviation import PolynomialDeviation

HIGHEST_DEGREE = 25  # 12 can't follow 1/(1 + 25x²), and its intervals then miss it
# Of the intervals: by what each coefficient is smaller than the one before it. With more than the
# first, what lies beyond the highest degree would matter; the last leaves little but a parabola.
FALLS = np.exp(-np.geomspace(0.13, 3, 12))
RATIOS = np.geomspace(1e-10, 1e4, 29)  # variance of the noise over that of the coefficient of T_2
LEAST_WEIGHT = 0.01  # relative to the best node's; lighter nodes are left out
REPRODUCES = 1e-6  # largest error at the data of coefficients in x, relative to the fit's range


@dataclass(frozen=True)
class DegreeError:
    """Errors of the polynomial of one degree."""

    degree: int
    mse: float
    leave_one_out: float


@dataclass(frozen=True)
class PolynomialFit(Fitted):
    """The chosen polynomial and the errors it was chosen by.

    ``scaled_coefficients`` are c_m … c_0 in t = (x − centre)/half-width, with ``scaling`` these two
    numbers; ``coefficients`` are w_m … w_0 in x, or None where rounding spoils them: ``off`` says
    by how much, at the data, in units of the fit's range.
    """

    coefficients: tuple[float, ...] | None
    scaled_coefficients: tuple[float, ...]
    scaling: tuple[float, float]
    off: float
    degree: int
    errors: tuple[DegreeError, ...]


def fit_polynomial(x: Array, y: Array, degree: int | None = None) -> PolynomialFit:
    """Least squares in the Chebyshev basis over the data's range.

    Without ``degree`` the lowest is taken whose leave-one-out error is within one standard error
    of the smallest, up to 25 (the rule of Breiman, Friedman, Olshen and Stone 1984, 3.4.3, here
    for differences point by point): the smallest itself is too often a high degree by chance, at
    the cost of f′. Raises JobError if there are fewer different x than coefficients.
    """
    distinct = len(np.unique(x))
    require_enough(distinct, degree)
    # Leaving one out needs a point to spare; two points determine just a line.
    highest = max(1, min(HIGHEST_DEGREE, distinct - 2)) if degree is None else degree
    found = [
        _leave_one_out(x, y, candidate)
        for candidate in (range(highest + 1) if degree is None else (degree,))
    ]
    errors = tuple(error for error, _ in found)
    chosen = errors[_lowest([squares for _, squares in found])].degree
    low, high = float(x.min()), float(x.max())
    fitted = Chebyshev.fit(x, y, chosen, domain=[low, high])
    scaled = fitted.convert(kind=NumpyPolynomial, domain=[low, high], window=[-1, 1])
    in_x = _padded(scaled.convert(domain=[-1, 1], window=[-1, 1]).coef.tolist(), chosen)[::-1]
    network = Polynomial(_padded(scaled.coef.tolist(), chosen), (low, high))
    with torch.no_grad():
        served = network(torch.from_numpy(x)).numpy()
    difference = float(np.abs(np.polyval(in_x, x) - served).max())
    off = difference / (float(np.ptp(served)) or float(np.abs(served).max()) or 1.0)
    centre, half = centre_and_half(low, high).tolist()
    size = max(error.degree for error in errors) + 1
    padded = np.array(_padded(fitted.coef.tolist(), size - 1))
    deviation, freedom = _deviation(x, y, padded, degree)
    return PolynomialFit(
        network=network,
        mse=mean_squared_error(network, x, y),
        deviation=deviation,
        degrees_of_freedom=freedom,
        coefficients=tuple(in_x) if off <= REPRODUCES else None,
        scaled_coefficients=tuple(network.coefficients.tolist()[::-1]),
        scaling=(centre, half),
        off=off,
        degree=chosen,
        errors=errors,
    )


def require_enough(distinct: int, degree: int | None) -> None:
    """Raise JobError if so many different x don't determine a polynomial of that degree."""
    if degree is not None and distinct < degree + 1:
        raise JobError(
            f"a polynomial of degree {degree} has {degree + 1} coefficients, "
            f"but the data has only {distinct} different x; choose --degree {distinct - 1} or less"
        )


def _lowest(squares: Sequence[Array]) -> int:
    """The first of the candidates that isn't worse than the best by more than one standard error.

    ``squares``: for each the squared error at every point [n] of a fit to the others.
    """
    best = min(range(len(squares)), key=lambda index: float(squares[index].mean()))
    for index in range(best):
        worse = squares[index] - squares[best]
        if worse.mean() <= worse.std(ddof=1) / math.sqrt(len(worse)):
            return index
    return best


def _leave_one_out(x: Array, y: Array, degree: int) -> tuple[DegreeError, Array]:
    """Training error, and the squared error at each point [n] of a fit to all the others.

    The second without refitting: e_i / (1 − h_ii), where h is the hat matrix QQᵀ (Allen's PRESS
    statistic, Technometrics 16, 1974).
    """
    basis, _ = np.linalg.qr(_basis(x, degree))
    residual = y - basis @ (basis.T @ y)
    leverage = (basis**2).sum(1)
    # A point that alone determines a coefficient has leverage 1: there is no fit without it.
    spare = np.maximum(1 - leverage, 1e-12)
    squares = (residual / spare) ** 2
    return DegreeError(degree, float(np.mean(residual**2)), float(np.mean(squares))), squares


@dataclass(frozen=True)
class _Posterior:
    """What the coefficients of T_0 … T_m are, given hyperparameters: mean [m+1], covariance SSᵀ by
    its root S [m+1, m+1], and the weight of these hyperparameters."""

    weight: float
    mean: Array
    root: Array


def _deviation(
    x: Array, y: Array, fitted: Array, degree: int | None
) -> tuple[PolynomialDeviation | None, float | None]:
    """The standard deviation about the polynomial of the coefficients ``fitted`` [m+1], and its
    degrees of freedom.

    The covariance of all coefficients plus the square of how far their mean is from those fitted,
    averaged over hyperparameters. All of them are quadratic forms in one basis, so that a single
    matrix holds their sum. A ``degree`` that was given is known: then this is the covariance
    s²(VᵀV)⁻¹ of least squares. Otherwise the degree is unknown, and with it how many coefficients
    there are: the polynomial has the highest degree, but for its coefficients to fall off.
    """
    size = len(fitted)
    free = size if degree is not None else 2
    freedom = len(x) - free
    if freedom < 1:
        return None, None
    columns = [
        math.sqrt(node.weight) * part
        for node in _posteriors(x, y, size, free)
        for part in (node.root, (node.mean - fitted)[:, np.newaxis])
    ]
    # The same sum of squares from a triangle: QR of the transpose.
    whole = np.transpose(np.linalg.qr(np.concatenate(columns, axis=1).T, mode="r"))
    scaling = centre_and_half(float(x.min()), float(x.max()))
    return PolynomialDeviation(torch.from_numpy(whole.copy()), scaling), float(freedom)


def _posteriors(x: Array, y: Array, size: int, free: int) -> list[_Posterior]:
    """Of the ``size`` coefficients, where nothing is known of the first ``free``.

    The others are normal about zero with standard deviations A, Aρ, Aρ², …: coefficients of a
    function without a corner fall off geometrically (Trefethen, Approximation Theory and
    Approximation Practice, chapter 8). A and the free coefficients are integrated out; ρ and the
    variance of the noise over A² are averaged over a grid, with their likelihood as weight, as in
    ``process``.
    """
    orthogonal, upper = np.linalg.qr(_basis(x, size - 1))
    rotated = orthogonal.T @ y
    rest = y - orthogonal @ rotated
    beyond = float(rest @ rest)  # what no polynomial of that degree explains
    freedom = len(x) - free
    if size == free:
        nodes = [(1.0, 1.0, 1.0)]
    else:
        likelihood = np.array(
            [_likelihoods(upper[free:, free:], rotated[free:], beyond, freedom, f) for f in FALLS]
        )
        weights = np.exp(likelihood - likelihood.max())
        weights[weights < LEAST_WEIGHT] = 0
        weights /= weights.sum()
        nodes = [
            (float(weights[row, column]), float(FALLS[row]), float(RATIOS[column]))
            for row, column in np.argwhere(weights)
        ]
    found = []
    for weight, fall, ratio in nodes:
        scale = np.concatenate([np.ones(free), _spread(size - free, fall)])
        # Least squares with a row for each coefficient that should be near zero.
        near_zero = np.eye(size)[free:]
        rows = np.concatenate([upper * scale / math.sqrt(ratio), near_zero])
        targets = np.concatenate([rotated / math.sqrt(ratio), np.zeros(len(near_zero))])
        turned, triangle = np.linalg.qr(rows)
        whitened = np.linalg.solve(triangle, turned.T @ targets)
        misses = targets - rows @ whitened
        variance = (float(misses @ misses) + beyond / ratio) / freedom
        root = scale[:, np.newaxis] * np.linalg.inv(triangle) * math.sqrt(variance)
        found.append(_Posterior(weight, scale * whitened, root))
    return found


def _likelihoods(upper: Array, rotated: Array, beyond: float, freedom: int, fall: float) -> Array:
    """The restricted log likelihood at each of ``RATIOS``, up to a constant."""
    left, singular, _ = np.linalg.svd(upper * _spread(upper.shape[1], fall), full_matrices=False)
    squares = (left.T @ rotated) ** 2
    rest = beyond + max(0.0, float(rotated @ rotated - squares.sum()))
    variances = singular[:, np.newaxis] ** 2 + RATIOS
    error = (squares[:, np.newaxis] / variances).sum(0) + rest / RATIOS
    result: Array = -0.5 * (
        np.log(variances).sum(0)
        + (freedom - len(squares)) * np.log(RATIOS)
        + freedom * np.log(np.maximum(error, np.finfo(np.float64).tiny))
    )
    return result


def _spread(count: int, fall: float) -> Array:
    spread: Array = fall ** np.arange(count, dtype=np.float64)
    return spread


def _basis(x: Array, degree: int) -> Array:
    low, high = x.min(), x.max()
    basis: Array = np.polynomial.chebyshev.chebvander((2 * x - low - high) / (high - low), degree)
    return basis


def _padded(coefficients: Sequence[float], degree: int) -> list[float]:
    """All m + 1 coefficients: numpy drops leading zeros when it converts."""
    return [*coefficients, *[0.0] * (degree + 1 - len(coefficients))]
