"""One 3×3 filter, a sigmoid, and a linear neuron on the 2×2 result: the homework's third question.

    z_pq = Σ_ij k_ij · x_(p+i)(q+j)     p, q in 0, 1;  i, j in 0, 1, 2
    a_pq = σ(z_pq)
    ŷ    = Σ_pq v_(2p+q) · a_pq
    L    = (ŷ − y)²

"Convolution" is cross-correlation, as in every deep learning library: no flip, no padding, stride
1, no bias. The neuron has no bias and no activation of its own.
"""

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

INPUTS = ("x", "kernel", "weights", "label")
OUTPUTS = (
    "prediction",
    "loss",
    "preactivation",
    "activation",
    "prediction_gradient",
    "activation_gradient",
    "preactivation_gradient",
    "kernel_gradient",
    "weights_gradient",
    "input_gradient",
)


class SigmoidConv(nn.Module):
    """The network as PyTorch's own layers: x [n,1,4,4] → ŷ [n], float64, 13 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, bias=False)
        self.sigmoid = nn.Sigmoid()
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(4, 1, bias=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.dense(self.flatten(self.sigmoid(self.convolution(x))))
        return output.squeeze(1)


def loss_gradient(x: Tensor, kernel: Tensor, weights: Tensor, label: Tensor) -> tuple[Tensor, ...]:
    """``OUTPUTS`` for a batch, each sample with parameters of its own: gradients by autograd.

    x [n,4,4], kernel [n,3,3], weights [n,4], label [n], all float64. Every gradient has the shape
    of what it is taken by; those of the intermediate results come from adding a zero to each and
    differentiating by the zero.
    """
    zero_maps = torch.zeros_like(x[:, :2, :2])
    windows = _windows().to(x.dtype)

    def total(movable: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sum of the losses (the samples don't touch one another), and what led there."""
        x, kernel, weights, on_preactivation, on_activation, on_prediction = movable
        patches = (x.flatten(1) @ windows).reshape(-1, 4, 9)
        convolved = (patches * kernel.flatten(1).unsqueeze(1)).sum(2)
        preactivation = on_preactivation + convolved.reshape(-1, 2, 2)
        activation = on_activation + preactivation.sigmoid()
        prediction = on_prediction + (weights * activation.flatten(1)).sum(1)
        loss = (prediction - label).square()
        return loss.sum(), (prediction, loss, preactivation, activation)

    movable = (x, kernel, weights, zero_maps, zero_maps, torch.zeros_like(label))
    gradients, (_, results) = grad_and_value(total, has_aux=True)(movable)
    by_input, by_kernel, by_weights, by_preactivation, by_activation, by_prediction = gradients
    return (
        *results,
        by_prediction,
        by_activation,
        by_preactivation,
        by_kernel,
        by_weights,
        by_input,
    )


def _windows() -> Tensor:
    """The 0/1 matrix [16, 36] that copies a flat 4×4 input to its four 3×3 windows, row by row.

    Each sample has a kernel of its own, which a convolution can't have; as a product with a
    constant the whole forward and backward pass is a dozen ONNX nodes.
    """
    places = torch.arange(16).reshape(4, 4)
    chosen = places.unfold(0, 3, 1).unfold(1, 3, 1).flatten()
    return nn.functional.one_hot(chosen, 16).T
