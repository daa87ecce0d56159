"""Fit a network and a polynomial to points, each choosing its own flexibility by held-out error."""

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
WEIGHT_DECAYS = (0.3, 0.1, 0.03, 0.01)
FOLDS = 5
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
class MLPFit:
    """The trained network, the weight decay chosen, and the held-out error of each candidate."""

    network: CurveMLP
    weight_decay: float
    mse: float
    held_out: dict[float, float]
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

    The weight decay keeps the derivatives sensible between the points: of four candidates, the one
    with the smallest error in five-fold cross-validation. Everything random comes from ``seed``.
    """
    held_out = {}
    with _one_thread():
        for weight_decay in WEIGHT_DECAYS:
            held_out[weight_decay] = _cross_validate(x, y, weight_decay, seed)
            report(f"  weight decay {weight_decay:g}: held-out MSE {held_out[weight_decay]:.4g}")
        chosen = min(held_out, key=lambda candidate: held_out[candidate])
        network, history = _train(x, y, chosen, seed)
    return MLPFit(network, chosen, mean_squared_error(network, x, y), held_out, tuple(history))


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


def _cross_validate(x: Array, y: Array, weight_decay: float, seed: int) -> float:
    """Mean squared error on points left out of the fit, over up to five folds."""
    fold = np.random.default_rng(seed).permutation(len(x)) % min(FOLDS, len(x))
    squared = []
    for number in range(int(fold.max()) + 1):
        out = fold == number
        network, _ = _train(x[~out], y[~out], weight_decay, seed)
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


def _train(x: Array, y: Array, weight_decay: float, seed: int) -> tuple[CurveMLP, Sequence[Round]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CurveMLP((float(x.min()), float(x.max())), (float(y.min()), float(y.max())))
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
