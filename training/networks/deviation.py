"""Standard deviations of fits that are linear, or nearly so, in their parameters.

With posterior covariance SSᵀ of the parameters and g(x) = ∂f/∂parameters, the standard deviation
of f is ‖g(x)·S‖, that of f′ is ‖g′(x)·S‖, and that of f″ is ‖g″(x)·S‖. For a polynomial g is the
basis; for a network this is the Laplace approximation (MacKay, Neural Computation 4, 1992).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.curve import CurveMLP

Jet = list[Tensor]  # a function of t with its derivatives, order by order


class PolynomialDeviation(nn.Module):
    """``root`` S [m+1, k] is for coefficients in the Chebyshev basis over ``x_scaling``."""

    def __init__(self, root: Tensor, x_scaling: Tensor) -> None:
        super().__init__()
        self.x_scaling = x_scaling
        size = len(root)
        # T_j^(order) in terms of T_0 … T_m, folded into the root.
        self.roots = []
        for order in range(3):
            matrix = np.zeros((size, size))
            for j in range(size):
                series = np.polynomial.chebyshev.chebder(np.eye(size)[j], order)
                matrix[j, : len(series)] = series
            self.roots.append(torch.from_numpy(matrix.T.copy()) @ root)

    def forward(self, x: Tensor, order: int) -> Tensor:
        """For orders 0, 1 and 2: x [n] → [n]."""
        t = (x - self.x_scaling[0]) / self.x_scaling[1]
        columns = [torch.ones_like(t), t]
        while len(columns) < len(self.roots[order]):
            columns.append(2 * t * columns[-1] - columns[-2])
        basis = torch.stack(columns[: len(self.roots[order])], 1)
        return _length(basis @ self.roots[order]) / self.x_scaling[1] ** order


class MLPDeviation(nn.Module):
    """``root`` S [P, k] is for the network's parameters in the order of ``parameters()``, in units
    of the scaled y."""

    def __init__(self, network: CurveMLP, root: Tensor) -> None:
        super().__init__()
        self.network = network
        self.root = root

    def forward(self, x: Tensor, order: int) -> Tensor:
        """For orders 0, 1 and 2: x [n] → [n]."""
        network = self.network
        t = (x - network.x_scaling[0]) / network.x_scaling[1]
        gradient = parameter_gradients(network, t, order)
        scale = network.y_scaling[1] / network.x_scaling[1] ** order
        return _length(gradient @ self.root) * scale


def parameter_gradients(network: CurveMLP, t: Tensor, order: int) -> Tensor:
    """d^order/dt^order of ∂(scaled y)/∂parameters: t [n] → [n, P].

    Back-propagation of each layer's gradient, as jets: values with their derivatives in t.
    """
    one, zero = torch.ones_like(t).unsqueeze(1), torch.zeros_like(t).unsqueeze(1)
    layers = len(network.hidden) + 1
    activations: list[Jet] = [[t.unsqueeze(1), one, zero][: order + 1]]
    slopes: list[Jet] = []
    for layer in range(1, layers):
        dense = network.dense(layer)
        before = [
            jet @ dense.weight.T + (dense.bias if n == 0 else 0)
            for n, jet in enumerate(activations[-1])
        ]
        after = _tanh(before)
        activations.append(after)
        slopes.append([1 - after[0] ** 2, *(-jet for jet in _product(after, after)[1:])])
    parts: list[Tensor] = []
    back: Jet = [one, zero, zero][: order + 1]
    for layer in range(layers, 0, -1):
        inputs = activations[layer - 1]
        outer = _product([jet.unsqueeze(2) for jet in back], [jet.unsqueeze(1) for jet in inputs])
        parts = [outer[order].flatten(1), back[order], *parts]
        if layer > 1:
            passed = [jet @ network.dense(layer).weight for jet in back]
            back = _product(passed, slopes[layer - 2])
    return torch.cat(parts, 1)


def _product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Jet:
    """Leibniz's rule."""
    result = []
    for order in range(len(first)):
        terms = [math.comb(order, n) * first[n] * second[order - n] for n in range(order + 1)]
        result.append(torch.stack(terms).sum(0))
    return result


def _tanh(jet: Jet) -> Jet:
    """tanh of a jet: h′ = (1 − h²)·z′, h″ = (1 − h²)·z″ − 2h·h′·z′."""
    value = torch.tanh(jet[0])
    result, slope = [value], 1 - value**2
    if len(jet) > 1:
        result.append(slope * jet[1])
    if len(jet) > 2:
        result.append(slope * jet[2] - 2 * value * result[1] * jet[1])
    return result


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length of each row."""
    return vectors.square().sum(1).sqrt()
