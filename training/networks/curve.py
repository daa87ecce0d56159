"""Functions of one real variable: a small network, and a polynomial. Both map x [n] to y [n].

Both compute in a scaled variable t, which runs from −1 to 1 over the data: a polynomial's normal
equations stay well conditioned there, and a tanh neither saturates nor sleeps. The scaling is part
of the module, so that derivatives are those in x.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class CurveMLP(nn.Module):
    """Dense layers with tanh between them, float64. Smooth, so that every derivative exists.

    ``x_range`` and ``y_range`` are the smallest and largest value of the data; ``hidden`` the sizes
    of the hidden layers, which are ``dense1``, ``dense2``, … as the module's attributes.
    """

    x_scaling: Tensor
    y_scaling: Tensor

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        hidden: Sequence[int] = (16, 16),
    ) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        sizes = (1, *hidden, 1)
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
            self.add_module(f"dense{layer}", nn.Linear(inputs, outputs))
            if layer <= len(hidden):
                self.add_module(f"tanh{layer}", nn.Tanh())
        self.double()
        self.register_buffer("x_scaling", centre_and_half(*x_range))
        self.register_buffer("y_scaling", centre_and_half(*y_range))

    def dense(self, layer: int) -> nn.Linear:
        """A dense layer, counted from 1."""
        found: nn.Linear = getattr(self, f"dense{layer}")
        return found

    def forward(self, x: Tensor) -> Tensor:
        hidden = ((x - self.x_scaling[0]) / self.x_scaling[1]).unsqueeze(1)
        for layer in range(1, len(self.hidden) + 1):
            hidden = self.get_submodule(f"tanh{layer}")(self.dense(layer)(hidden))
        output: Tensor = self.dense(len(self.hidden) + 1)(hidden).squeeze(1)
        return output * self.y_scaling[1] + self.y_scaling[0]


class Polynomial(nn.Module):
    """Σ c_k·t^k by Horner's rule, with t = (x − centre)/half-width, float64.

    ``coefficients`` are c_0 … c_m, those of the scaled variable; ``x_range`` is the interval that t
    maps to [−1, 1].
    """

    x_scaling: Tensor

    def __init__(self, coefficients: Sequence[float], x_range: tuple[float, float]) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor(coefficients, dtype=torch.float64))
        self.register_buffer("x_scaling", centre_and_half(*x_range))

    @property
    def multiply_adds(self) -> int:
        """Horner's rule takes one for each coefficient but the first."""
        return len(self.coefficients) - 1

    def forward(self, x: Tensor) -> Tensor:
        scaled = (x - self.x_scaling[0]) / self.x_scaling[1]
        total = self.coefficients[-1].expand_as(scaled)
        for coefficient in self.coefficients[:-1].flip(0).unbind():
            total = total * scaled + coefficient
        return total


def centre_and_half(low: float, high: float) -> Tensor:
    """The middle of an interval and half its width, or 1 for an interval without one."""
    return torch.tensor([(low + high) / 2, (high - low) / 2 or 1.0], dtype=torch.float64)
