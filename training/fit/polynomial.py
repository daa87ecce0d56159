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
    deviation, freedom = _deviation(x, y, chosen, [error.degree for error in errors])
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


def _deviation(
    x: Array, y: Array, chosen: int, degrees: Sequence[int]
) -> tuple[PolynomialDeviation | None, float | None]:
    """The standard deviation, with the uncertainty of the degree in it.

    Covariance s²(VᵀV)⁻¹ of the coefficients of each degree, averaged with Akaike weights (with
    the correction for few points), plus the spread of these fits about the chosen one (Buckland,
    Burnham and Augustin, Biometrics 53, 1997). All of them are quadratic forms in one basis, so
    that a single matrix holds their sum.
    """
    count, size = len(x), max(degrees) + 1
    information, roots, shifts = [], [], []
    reference = _coefficients(x, y, chosen, size)
    for degree in degrees:
        freedom = count - degree - 1
        if freedom < 1:
            continue
        _, triangle = np.linalg.qr(_basis(x, degree))
        coefficients = _coefficients(x, y, degree, size)
        squares = float(np.sum((y - _basis(x, size - 1) @ coefficients) ** 2))
        root = np.zeros((size, degree + 1))
        root[: degree + 1] = np.linalg.inv(triangle) * math.sqrt(squares / freedom)
        parameters = degree + 2  # with the variance of the noise
        spare = count - parameters - 1
        correction = 2 * parameters * (parameters + 1) / spare if spare > 0 else math.inf
        # Differences at the size of rounding error say nothing: exact fits are equally good.
        floor = count * (1e-13 * (float(np.abs(y).max()) or 1.0)) ** 2
        information.append(
            count * math.log(max(squares, floor) / count) + 2 * parameters + correction
        )
        roots.append(root)
        shifts.append(coefficients - reference)
        if degree == chosen:
            chosen_freedom = freedom
    if count - chosen - 1 < 1:
        return None, None
    spread = np.array(information)
    best = spread.min()
    weights = np.exp(-(spread - best) / 2) if np.isfinite(best) else np.ones(len(spread))
    weights /= weights.sum()
    columns = [
        part
        for weight, root, shift in zip(weights, roots, shifts, strict=True)
        for part in (math.sqrt(weight) * root, math.sqrt(weight) * shift[:, np.newaxis])
    ]
    # The same sum of squares from a triangle: QR of the transpose.
    whole = np.transpose(np.linalg.qr(np.concatenate(columns, axis=1).T, mode="r"))
    scaling = centre_and_half(float(x.min()), float(x.max()))
    return PolynomialDeviation(torch.from_numpy(whole.copy()), scaling), float(chosen_freedom)


def _basis(x: Array, degree: int) -> Array:
    low, high = x.min(), x.max()
    basis: Array = np.polynomial.chebyshev.chebvander((2 * x - low - high) / (high - low), degree)
    return basis


def _coefficients(x: Array, y: Array, degree: int, size: int) -> Array:
    """Of T_0 … T_(size−1), by least squares, zero above ``degree``."""
    found = np.zeros(size)
    found[: degree + 1] = np.linalg.lstsq(_basis(x, degree), y, rcond=None)[0]
    return found


def _padded(coefficients: Sequence[float], degree: int) -> list[float]:
    """All m + 1 coefficients: numpy drops leading zeros when it converts."""
    return [*coefficients, *[0.0] * (degree + 1 - len(coefficients))]
