"""Fit a network and a polynomial to points, each choosing its own flexibility by held-out error."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from numpy.polynomial import Polynomial as NumpyPolynomial
from numpy.typing import NDArray
from torch import Tensor, nn

from training.errors import JobError
from training.networks.curve import CurveMLP, Polynomial

HIGHEST_DEGREE = 12
WIDTHS = (8, 16)
WEIGHT_DECAYS = (0.1, 0.03, 0.01, 0.003)
FOLDS = 5
REPEATS = 3  # with other folds and first weights: one cross-validation of 20 points is mostly luck
ROUNDS = 6  # of L-BFGS, each of up to ITERATIONS
ITERATIONS = 20

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DegreeError:
    """How well polynomials of one degree do."""

    degree: int
    mse: float
    leave_one_out: float


@dataclass(frozen=True)
class PolynomialFit:
    """The chosen polynomial, its coefficients w_m … w_0 in x, and the errors it was chosen by."""

    network: Polynomial
    coefficients: tuple[float, ...]
    degree: int
    mse: float
    errors: tuple[DegreeError, ...]


@dataclass(frozen=True)
class Round:
    """One round of L-BFGS: what it minimises, and the mean squared error within that."""

    number: int
    objective: float
    mse: float


@dataclass(frozen=True)
class Candidate:
    """A width of both hidden layers and a weight decay, and the error of such fits on points that
    were left out of them."""

    width: int
    weight_decay: float
    held_out_mse: float


@dataclass(frozen=True)
class MLPFit:
    """The trained network, the candidates and which of them it is."""

    network: CurveMLP
    chosen: Candidate
    mse: float
    candidates: tuple[Candidate, ...]
    history: tuple[Round, ...]


def fit_polynomial(x: Array, y: Array, degree: int | None = None) -> PolynomialFit:
    """Least squares in the Chebyshev basis over the data's range.

    Without ``degree`` the one with the smallest leave-one-out error is taken, up to 12. Raises
    JobError if there are fewer different x than the polynomial has coefficients.
    """
    distinct = len(np.unique(x))
    if degree is not None and distinct < degree + 1:
        raise JobError(
            f"a polynomial of degree {degree} has {degree + 1} coefficients, "
            f"but the data has only {distinct} different x; choose --degree {distinct - 1} or less"
        )
    # Leaving one out needs a point to spare; with two points a line is all there is.
    highest = max(1, min(HIGHEST_DEGREE, distinct - 2)) if degree is None else degree
    errors = tuple(
        _leave_one_out(x, y, candidate)
        for candidate in (range(highest + 1) if degree is None else (degree,))
    )
    chosen = min(errors, key=lambda error: error.leave_one_out).degree
    low, high = float(x.min()), float(x.max())
    fitted = Chebyshev.fit(x, y, chosen, domain=[low, high])
    scaled = fitted.convert(kind=NumpyPolynomial, domain=[low, high], window=[-1, 1])
    in_x = scaled.convert(domain=[-1, 1], window=[-1, 1]).coef
    network = Polynomial(_padded(scaled.coef.tolist(), chosen), (low, high))
    return PolynomialFit(
        network=network,
        coefficients=tuple(_padded(in_x.tolist(), chosen)[::-1]),
        degree=chosen,
        mse=mean_squared_error(network, x, y),
        errors=errors,
    )


def fit_mlp(
    x: Array, y: Array, seed: int, report: Callable[[str], None] = lambda _: None
) -> MLPFit:
    """Minimise squared error plus weight decay with L-BFGS, on the full batch.

    Few units and a weight decay keep the derivatives sensible between the points: of the
    candidates, those with the smallest error in repeated five-fold cross-validation. Everything
    random comes from ``seed``.
    """
    candidates = []
    with _one_thread():
        for width, weight_decay in itertools.product(WIDTHS, WEIGHT_DECAYS):
            error = _cross_validate(x, y, width, weight_decay, seed)
            candidates.append(Candidate(width, weight_decay, error))
            report(f"  width {width}, weight decay {weight_decay:g}: held-out MSE {error:.4g}")
        chosen = min(candidates, key=lambda candidate: candidate.held_out_mse)
        network, history = _train(x, y, chosen.width, chosen.weight_decay, seed)
    mse = mean_squared_error(network, x, y)
    return MLPFit(network, chosen, mse, tuple(candidates), tuple(history))


def mean_squared_error(network: nn.Module, x: Array, y: Array) -> float:
    """Mean of (network(x) − y)²."""
    with torch.no_grad():
        return float((network(torch.from_numpy(x)) - torch.from_numpy(y)).square().mean())


def _leave_one_out(x: Array, y: Array, degree: int) -> DegreeError:
    """Training error, and the mean squared error at each point of a fit to all the others.

    The second without refitting: e_i / (1 − h_ii), where h is the hat matrix QQᵀ (Allen's PRESS
    statistic, Technometrics 16, 1974).
    """
    low, high = x.min(), x.max()
    scaled = (2 * x - low - high) / (high - low)
    basis, _ = np.linalg.qr(np.polynomial.chebyshev.chebvander(scaled, degree))
    residual = y - basis @ (basis.T @ y)
    leverage = (basis**2).sum(1)
    # A point that the fit can't do without has leverage 1, and nothing to be judged by.
    spare = np.maximum(1 - leverage, 1e-12)
    return DegreeError(degree, float(np.mean(residual**2)), float(np.mean((residual / spare) ** 2)))


def _padded(coefficients: Sequence[float], degree: int) -> list[float]:
    """All m + 1 coefficients: numpy drops leading zeros when it converts."""
    return [*coefficients, *[0.0] * (degree + 1 - len(coefficients))]


def _cross_validate(x: Array, y: Array, width: int, weight_decay: float, seed: int) -> float:
    """Mean squared error on points left out of the fit, over up to five folds, drawn repeatedly."""
    squared = []
    for repeat in range(seed, seed + REPEATS):
        fold = np.random.default_rng(repeat).permutation(len(x)) % min(FOLDS, len(x))
        for number in range(int(fold.max()) + 1):
            out = fold == number
            network, _ = _train(x[~out], y[~out], width, weight_decay, repeat)
            with torch.no_grad():
                found = network(torch.from_numpy(x[out])).numpy()
            squared.extend((found - y[out]) ** 2)
    return float(np.mean(squared))


@contextmanager
def _one_thread() -> Iterator[None]:
    """A few dozen points are too little work to share, and one thread always sums in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(
    x: Array, y: Array, width: int, weight_decay: float, seed: int
) -> tuple[CurveMLP, Sequence[Round]]:
    x_range, y_range = (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CurveMLP(x_range, y_range, width)
    weights = [value for name, value in network.named_parameters() if name.endswith("weight")]
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    scale = network.y_scaling[1].square()
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def error() -> Tensor:
        difference: Tensor = network(inputs) - targets
        return difference.square().mean()

    def objective() -> Tensor:
        # In units of the data's half range, so that one weight decay suits every unit of y.
        penalty = torch.stack([weight.square().mean() for weight in weights]).sum()
        return error() / scale + weight_decay * penalty

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = objective()
        total.backward()
        return total

    history = []
    for number in range(1, ROUNDS + 1):
        optimizer.step(closure)
        with torch.no_grad():
            history.append(Round(number, float(objective()), float(error())))
    return network, history
