"""f′ at chosen places by independent means: autograd, the analytic formula, central differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.intervals import within_reach
from training.errors import JobError
from training.networks.curve import Polynomial
from training.networks.process import GaussianProcess
from training.publish.derivatives import derivative

ANALYTIC_TOLERANCE = 1e-9
CENTRAL_TOLERANCE = 1e-6
STEP = float(np.cbrt(np.finfo(np.float64).eps))  # balances truncation and rounding

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """f and f′ at one x. ``analytic`` is None for a network, ``truth`` where it isn't known,
    ``standard_error`` where the points can't tell, or x lies far outside them."""

    x: float
    value: float
    autograd: float
    central: float
    analytic: float | None
    truth: float | None
    extrapolated: bool
    standard_error: float | None = None

    @property
    def disagreement(self) -> float:
        """Largest difference of the other means from autograd."""
        others = (self.central, self.analytic)
        return max(abs(self.autograd - other) for other in others if other is not None)


def measure_slopes(
    network: nn.Module,
    places: Sequence[float],
    domain: tuple[float, float],
    unit: float,
    truth: Callable[[Array], Array] | None = None,
    deviation: Callable[[Tensor, int], Tensor] | None = None,
) -> list[Slope]:
    """f′ of a frozen ``network`` at ``places``, each way.

    ``domain`` is the range of x in the data, ``unit`` a typical slope (range of y over range of x):
    tolerances are relative to f′, or to it where f′ is smaller. Raises JobError if autograd is off
    by more than 1e-9 from the analytic derivative, or 1e-6 from central differences.
    """
    low, high = domain
    x = torch.tensor(places, dtype=torch.float64)
    values = network(x)
    by_autograd = derivative(network, 1)(x)
    # In proportion to the scaled variable: far outside the data a polynomial is steep.
    centre, half = (low + high) / 2, (high - low) / 2
    by_difference = central_difference(network, x, STEP * (x - centre).abs().clamp(min=half))
    by_formula = None
    if isinstance(network, Polynomial):
        by_formula = analytic(network, x)
    elif isinstance(network, GaussianProcess):
        by_formula = network.derivative(x, 1).numpy()
    errors = None if deviation is None else deviation(x, 1).numpy()
    known = within_reach(x.numpy(), domain)
    slopes = [
        Slope(
            x=place,
            value=float(values[index]),
            autograd=float(by_autograd[index]),
            central=float(by_difference[index]),
            analytic=None if by_formula is None else float(by_formula[index]),
            truth=None if truth is None else float(truth(np.array([place]))[0]),
            extrapolated=not low <= place <= high,
            standard_error=float(errors[index]) if errors is not None and known[index] else None,
        )
        for index, place in enumerate(places)
    ]
    for slope in slopes:
        scale = max(abs(slope.autograd), unit)
        _check(slope, "central differences", slope.central, CENTRAL_TOLERANCE * scale)
        if slope.analytic is not None:
            _check(slope, "the analytic derivative", slope.analytic, ANALYTIC_TOLERANCE * scale)
    return slopes


def central_difference(function: Callable[[Tensor], Tensor], x: Tensor, step: Tensor) -> Tensor:
    """(f(x+h) − f(x−h)) / 2h, with the step that x±h really have after rounding."""
    right, left = x + step, x - step
    return (function(right) - function(left)) / (right - left)


def analytic(polynomial: Polynomial, x: Tensor) -> Array:
    """Σ k·c_k·t^(k−1) / half-width, by NumPy: it shares no code with the module or autograd.

    In the scaled variable t: in x the terms may cancel (for x such as years).
    """
    centre, half = polynomial.x_scaling.numpy()
    coefficients = polynomial.coefficients.detach().numpy()
    scaled = (x.numpy() - centre) / half
    powers = np.polynomial.polynomial.polyder(coefficients)
    slope: Array = np.polynomial.polynomial.polyval(scaled, powers) / half
    return slope


def _check(slope: Slope, means: str, found: float, tolerance: float) -> None:
    if not abs(slope.autograd - found) <= tolerance:
        raise JobError(
            f"f′({slope.x:g}) is {slope.autograd:.12g} by autograd but {found:.12g} by {means}; "
            "nothing was published"
        )
