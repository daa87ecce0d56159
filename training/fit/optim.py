"""Optimisers and the learning-rate schedule."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.fit.recipe import Recipe


@torch.no_grad()
def orthogonalise(matrix: Tensor, steps: int = 3) -> Tensor:
    """The nearest orthogonal matrix to [rows, columns], nearly, by Newton-Schulz iteration.

    K. Jordan et al., "Muon: An optimizer for hidden layers", 2024; its quintic coefficients.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for convolution filters [out, in, h, w].

    The filters' norm is held at √out: with BatchNorm behind them only their direction counts.
    PyTorch's own Muon takes matrices only.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take one step. ``closure`` is there for the base class's sake and must be None."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"]
                buffer.mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad.add(buffer, alpha=group["momentum"])
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                update = orthogonalise(direction.reshape(len(weight), -1).to(weight.dtype))
                weight.add_(update.view(weight.shape), alpha=-group["lr"])


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate: linear from 0.2 up to 1 over the warm-up, then down to 0."""
    turn = warmup * steps
    if step < turn:
        return 0.2 + 0.8 * step / turn
    return max(0.0, (steps - step) / (steps - turn))


def take_step(optimizers: Iterable[torch.optim.Optimizer], lr_factor: float) -> None:
    """Step at the peak learning rates times ``lr_factor``, and forget the gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor
        optimizer.step()
        optimizer.zero_grad()


def make_optimizers(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The optimisers for the parameters of ``network`` that require a gradient.

    Each parameter group has ``peak_lr``, which ``schedule`` scales.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizers: list[torch.optim.Optimizer]
    if recipe.optimizer == "adamw":
        optimizers = [torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)]
    else:
        filters = [parameter for parameter in trained if parameter.ndim == 4]
        others = [
            _decayed([p for p in trained if p.ndim == 1], recipe.sgd_lr, recipe.weight_decay),
            _decayed([p for p in trained if p.ndim == 2], recipe.head_lr, recipe.weight_decay),
        ]
        optimizers = [
            Muon(filters, lr=recipe.lr, momentum=recipe.momentum),
            torch.optim.SGD(others, lr=recipe.sgd_lr, momentum=0.85, nesterov=True),
        ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _decayed(params: list[nn.Parameter], lr: float, decay: float) -> dict[str, Any]:
    """An SGD group that shrinks by the share ``decay`` each step at the peak learning rate."""
    return {"params": params, "lr": lr, "weight_decay": decay / lr}
