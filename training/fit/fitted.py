"""The result of a fit of a curve: network, error and uncertainty."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CHUNK = 2048  # points at a time: a process has a kernel for each point and each of its own
Array = NDArray[np.float64]
Deviation = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Fitted:
    """``network`` maps x [n] to y [n]; ``mse`` is its mean squared error on the points.

    ``deviation(x, order)`` [n], for orders 0 to 2, is the standard deviation of f, f′ and f″ given
    the data; None where the points don't determine it. ``degrees_of_freedom`` are those of
    Student's t for intervals.
    """

    network: nn.Module
    mse: float
    deviation: nn.Module | None
    degrees_of_freedom: float | None


def mean_squared_error(network: nn.Module, x: Array, y: Array) -> float:
    """Mean of (network(x) − y)²."""
    squares = 0.0
    with torch.no_grad():
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            off = network(torch.from_numpy(x[part])) - torch.from_numpy(y[part])
            squares += float(off.square().sum())
    return squares / len(x)


def r_squared(mse: float, y: Array) -> float:
    """The share of the variance of y that a fit explains; 1 for a y that doesn't vary."""
    variance = float(np.var(y))
    return 1 - mse / variance if variance > 0 else 1.0


def residuals_correlate(network: nn.Module, x: Array, y: Array) -> float:
    """Correlation of neighbouring residuals, along x: near 0 for noise, near 1 for a fit that
    can't bend as the data does. Of very many points, some two thousand are looked at."""
    order = np.argsort(x, kind="stable")[:: max(1, len(x) // CHUNK)]
    with torch.no_grad():
        residual = network(torch.from_numpy(x[order])).numpy() - y[order]
    size = float(residual @ residual)
    return float(residual[1:] @ residual[:-1]) / size if size > 0 else 0.0
