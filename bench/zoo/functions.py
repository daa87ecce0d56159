"""Plain functions of the collection that take more than a line."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

DOUBLE = torch.float64


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def rosenbrock_of_one(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def lotka_volterra(rates: Tensor) -> Tensor:
    """50 steps of Runge and Kutta's method of order 4."""

    def slope(state: Tensor) -> Tensor:
        prey, hunters = state[:, 0], state[:, 1]
        growth = rates[:, 0] * prey - rates[:, 1] * prey * hunters
        return torch.stack([growth, -rates[:, 2] * hunters + 0.1 * prey * hunters], 1)

    state, step = torch.ones(rates.shape[0], 2, dtype=rates.dtype), 0.02
    for _ in range(50):
        first = slope(state)
        second = slope(state + step / 2 * first)
        third = slope(state + step / 2 * second)
        fourth = slope(state + step * third)
        state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
    return state


_KNOTS = torch.linspace(-3, 3, 16, dtype=DOUBLE)
_HEIGHTS = torch.sin(_KNOTS)


def interpolated(x: Tensor) -> Tensor:
    """Linear interpolation in a table."""
    index = torch.searchsorted(_KNOTS, x.clamp(-2.99, 2.99)).clamp(1, 15)
    left, right = _KNOTS[index - 1], _KNOTS[index]
    low, high = _HEIGHTS[index - 1], _HEIGHTS[index]
    return low + (x - left) / (right - left) * (high - low)


def _training_points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20, 2, dtype=DOUBLE, generator=generator)
    return points, torch.sin(points.sum(1))


def gaussian_process(*, solve: bool = False) -> Callable[[Tensor], Tensor]:
    """Mean and variance of a Gaussian process; by its inverse, or by a triangular solve."""
    points, values = _training_points()
    kernel = torch.exp(-0.5 * torch.cdist(points, points) ** 2)
    lower = torch.linalg.cholesky(kernel + 1e-2 * torch.eye(20, dtype=DOUBLE))
    weights = torch.cholesky_solve(values[:, None], lower)[:, 0]
    inverse = torch.cholesky_inverse(lower)

    def predicted(x: Tensor) -> Tensor:
        near = torch.exp(-0.5 * ((x[:, None] - points) ** 2).sum(-1))
        if solve:
            half = torch.linalg.solve_triangular(lower, near.T, upper=False)
            known = (half * half).sum(0)
        else:
            known = ((near @ inverse) * near).sum(1)
        return torch.stack([near @ weights, 1 - known], 1)

    return predicted


def kernel_sum() -> Callable[[Tensor], Tensor]:
    """A sum of Gaussians by ``torch.cdist``."""
    points, weights = _training_points()
    return lambda x: torch.exp(-0.5 * torch.cdist(x, points) ** 2) @ weights


def pieces(x: Tensor) -> Tensor:
    bent = torch.where(x > 0, x.abs(), x.clamp(-0.5, 0.5) ** 2)
    return bent + torch.relu(x) * torch.minimum(x, x**2) + torch.sign(x) * x


def trigonometric(x: Tensor) -> Tensor:
    arcs = torch.atan(x) + torch.asinh(x) + torch.acos(torch.tanh(x) * 0.9)
    return torch.sin(x) * torch.cos(x) + arcs + torch.sinh(x * 0.1) + torch.tan(x * 0.1)


def exponentials(x: Tensor) -> Tensor:
    square = x**2 + 1
    logs = torch.log1p(x**2) + torch.expm1(x * 0.1) + torch.exp(-x) + torch.log(square)
    return logs + torch.sqrt(square) + torch.rsqrt(square) + square**1.5


def softmaxes(x: Tensor) -> Tensor:
    shares = functional.log_softmax(x, 1)[:, 0] + functional.softmax(x, 1)[:, 1]
    return torch.logsumexp(x, 1) + shares


def norms(x: Tensor) -> Tensor:
    return torch.linalg.norm(x, dim=1) + torch.linalg.vector_norm(x, 3, dim=1)


def moved(x: Tensor) -> Tensor:
    shifted = functional.pad(x, (1, 0))[:, :-1] ** 2
    return torch.roll(x, 1, 1) * x.flip(1) + shifted + torch.diff(x, dim=1).square().sum(1, True)


def index_added(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(1, torch.tensor([0, 0, 1]), x**2)


def assigned(x: Tensor) -> Tensor:
    """Writes into slices of a new tensor."""
    y = torch.zeros_like(x)
    y[:, 0] = x[:, 1] ** 2
    y[:, 1:] = x[:, :2] * x[:, 2:]
    return y


def enlarged(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear").square().mean((1, 2, 3))


def sampled() -> Callable[[Tensor], Tensor]:
    """A picture at given places, by ``grid_sample``."""
    picture = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(1))

    def look(places: Tensor) -> Tensor:
        pictures = picture.expand(places.shape[0], -1, -1, -1)
        grid = places.reshape(-1, 1, 1, 2)
        return functional.grid_sample(pictures, grid, align_corners=True).reshape(-1, 1)

    return look


def deconvolved() -> Callable[[Tensor], Tensor]:
    kernel = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return lambda x: functional.conv_transpose2d(x, kernel, stride=2).square().sum((1, 2, 3))


def through_numpy(x: Tensor) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.sin(x.detach().numpy())) * x


def newton(x: Tensor) -> Tensor:
    """The cube root of x² + 1 by 20 of Newton's steps."""
    y, wanted = torch.ones_like(x), x**2 + 1
    for _ in range(20):
        y = y - (y**3 - wanted) / (3 * y**2)
    return y


class OwnExp(torch.autograd.Function):
    """exp with a derivative written by hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return gradient * output


def polynomial(x: Tensor) -> Tensor:
    weights = torch.arange(6, dtype=DOUBLE)
    return torch.stack([x**power for power in range(6)], -1) @ weights


def softmax_regression() -> Callable[[Tensor], Tensor]:
    weights = torch.randn(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    return lambda x: torch.softmax(x @ weights + 0.1, 1)
