"""A Gaussian process of one real variable, conditioned on points: mean and standard deviation.

In t = (x − centre)/half-width of the data and u = (y − centre)/scale, the prior is a straight line
with a flat prior plus a process with the Matérn kernel of smoothness 7/2,

    k(d) = (1 + s + 2s²/5 + s³/15)·exp(−s),   s = √7·|d|/ℓ

times an amplitude, plus noise (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006: chapter 2.7 for the line, 4.2 for the kernel). It is three times differentiable, so that f″
has a standard deviation; f‴ has a mean, but none. Hyperparameters are averaged over several, each
with a weight. All derivatives are in closed form: those of k at the data points, where |d| has a
corner, are not what autograd would make of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# d^n k / ds^n = (c0 + c1·s + c2·s² + c3·s³)·exp(−s), for n = 0 … 3.
# Tensors: Python's own numbers the exporter would round to float32.
_KERNEL = torch.tensor(
    [
        [1, 1, 2 / 5, 1 / 15],
        [0, -1 / 5, -1 / 5, -1 / 15],
        [-1 / 5, -1 / 5, 0, 1 / 15],
        [0, 1 / 5, 1 / 5, -1 / 15],
    ],
    dtype=torch.float64,
)
# Variances of f, f′ and f″ under the prior, in units of rate^(2·order): (−1)^n·k^(2n)(0).
_PRIOR = torch.tensor([1, 1 / 5, 1 / 5], dtype=torch.float64)
_LEAST = torch.tensor(1e-13, dtype=torch.float64)


@dataclass(frozen=True)
class Posterior:
    """J choices of hyperparameters, each conditioned on the same N points. All float64.

    ``weight``, ``rate`` (√7/ℓ) and ``amplitude`` are [J]. u(t) = [1, t]·``line`` [J, 2] +
    Σ k(t − tᵢ)·``alpha`` [J, N]. ``whiten`` [J, N, N] is the inverse Cholesky factor of K + noise,
    ``whitened_line`` [J, N, 2] that factor times [1, tᵢ], ``line_root`` [J, 2, 2] a root of the
    line's covariance; covariances are times the amplitude.
    """

    weight: Tensor
    rate: Tensor
    amplitude: Tensor
    line: Tensor
    alpha: Tensor
    whiten: Tensor
    whitened_line: Tensor
    line_root: Tensor


class GaussianProcess(nn.Module):
    """The mean: x [n] to y [n], float64, with its derivatives to the third in closed form.

    ``points`` are tᵢ [N]; ``x_scaling`` and ``y_scaling`` are centre and scale of x and y.
    """

    x_scaling: Tensor
    y_scaling: Tensor
    points: Tensor
    rates: Tensor

    def __init__(
        self, points: Tensor, x_scaling: Tensor, y_scaling: Tensor, process: Posterior
    ) -> None:
        super().__init__()
        rates, group = process.rate.unique(return_inverse=True)
        alpha = torch.zeros(len(rates), len(points), dtype=torch.float64)
        alpha.index_add_(0, group, process.weight.unsqueeze(1) * process.alpha)
        self.alpha = nn.Parameter(alpha)
        self.line = nn.Parameter(process.weight @ process.line)
        self.register_buffer("points", points)
        self.register_buffer("rates", rates)
        self.register_buffer("x_scaling", x_scaling)
        self.register_buffer("y_scaling", y_scaling)

    @property
    def multiply_adds(self) -> int:
        """One for each weight of a kernel, and one for the slope."""
        return self.alpha.numel() + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.derivative(x, 0)

    def derivative(self, x: Tensor, order: int) -> Tensor:
        """d^order y / dx^order at each x [n], for orders 0 to 3."""
        t = (x - self.x_scaling[0]) / self.x_scaling[1]
        similar = kernel(t, self.points, self.rates, order)
        total = (similar * self.alpha.unsqueeze(1)).sum((0, 2)) + line_basis(t, order) @ self.line
        total = total * (self.y_scaling[1] / self.x_scaling[1] ** order)
        return total + self.y_scaling[0] if order == 0 else total


class ProcessDeviation(nn.Module):
    """Standard deviations of f, f′ and f″ at each x [n], given the points."""

    def __init__(self, mean: GaussianProcess, process: Posterior) -> None:
        super().__init__()
        self.mean = mean
        self.process = process

    def forward(self, x: Tensor, order: int) -> Tensor:
        """For orders 0, 1 and 2."""
        mean, process = self.mean, self.process
        t = (x - mean.x_scaling[0]) / mean.x_scaling[1]
        basis = line_basis(t, order)
        similar = kernel(t, mean.points, process.rate, order)  # [J, n, N]
        whitened = similar @ process.whiten.transpose(1, 2)
        rest = (basis - whitened @ process.whitened_line) @ process.line_root
        prior = (_PRIOR[order] * process.rate ** (2 * order)).unsqueeze(1)
        # Never quite zero: rounding could make it negative, and its root not finite.
        known = torch.maximum(prior - whitened.square().sum(2), _LEAST * prior)
        variances = process.amplitude.unsqueeze(1) * (known + rest.square().sum(2))
        values = (similar * process.alpha.unsqueeze(1)).sum(2) + process.line @ basis.T
        # The variance of a mixture: the mean of the variances, and the variance of the means.
        spread = (values - process.weight @ values).square()
        total = process.weight @ (variances + spread)
        return total.sqrt() * (mean.y_scaling[1] / mean.x_scaling[1] ** order)


def kernel(t: Tensor, points: Tensor, rates: Tensor, order: int = 0) -> Tensor:
    """d^order k(t − tᵢ) / dt^order: t [n], points [N], rates [J] → [J, n, N]."""
    difference = t.unsqueeze(1) - points
    rate = rates.reshape(-1, 1, 1)
    s = rate * difference.abs()
    c0, c1, c2, c3 = (_KERNEL[order, power] for power in range(4))
    value = (c0 + s * (c1 + s * (c2 + s * c3))) * torch.exp(-s) * rate**order
    return value * difference.sign() if order % 2 else value


def line_basis(t: Tensor, order: int = 0) -> Tensor:
    """[1, t] at each t, or its derivative: [n] → [n, 2]."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    columns = {0: (one, t), 1: (zero, one)}.get(order, (zero, zero))
    return torch.stack(columns, 1)
