"""The same gradients by three means that share no code with the exported function.

Each takes one sample, as a dict of arrays named like the inputs of ``loss_gradient``, and returns
arrays named like its outputs.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from training.networks.sigmoid_conv import SigmoidConv

Array = NDArray[np.float64]
Sample = Mapping[str, Array]
_SHAPES: dict[str, tuple[int, ...]] = {
    "loss": (),
    "prediction": (),
    "prediction_gradient": (),
    "kernel_gradient": (3, 3),
    "weights_gradient": (4,),
    "input_gradient": (4, 4),
}
STEP = float(np.cbrt(np.finfo(np.float64).eps))


def closed_form(sample: Sample) -> dict[str, Array]:
    """The report's formulas, in NumPy, sum by sum."""
    x, kernel, label = sample["x"], sample["kernel"], sample["label"]
    weights = sample["weights"].reshape(2, 2)  # v_m belongs to a_pq with m = 2p + q
    z = np.array([[np.sum(kernel * x[p : p + 3, q : q + 3]) for q in range(2)] for p in range(2)])
    a = 1 / (1 + np.exp(-z))
    prediction = np.sum(weights * a)
    by_prediction = 2 * (prediction - label)
    by_activation = by_prediction * weights
    by_preactivation = by_activation * a * (1 - a)
    by_kernel = np.zeros((3, 3))
    by_input = np.zeros((4, 4))
    for p in range(2):
        for q in range(2):
            by_kernel += by_preactivation[p, q] * x[p : p + 3, q : q + 3]
            by_input[p : p + 3, q : q + 3] += by_preactivation[p, q] * kernel
    return {
        "prediction": prediction,
        "loss": (prediction - label) ** 2,
        "preactivation": z,
        "activation": a,
        "prediction_gradient": by_prediction,
        "activation_gradient": by_activation,
        "preactivation_gradient": by_preactivation,
        "kernel_gradient": by_kernel,
        "weights_gradient": by_prediction * a.flatten(),
        "input_gradient": by_input,
    }


def by_autograd(sample: Sample) -> dict[str, Array]:
    """``backward`` through PyTorch's own Conv2d, Sigmoid and Linear."""
    network = SigmoidConv()
    x = torch.tensor(sample["x"]).reshape(1, 1, 4, 4).requires_grad_(True)
    with torch.no_grad():
        network.convolution.weight.copy_(torch.tensor(sample["kernel"]).reshape(1, 1, 3, 3))
        network.dense.weight.copy_(torch.tensor(sample["weights"]).reshape(1, 4))
    preactivation = network.convolution(x)
    activation = network.sigmoid(preactivation)
    prediction = network.dense(network.flatten(activation)).squeeze()
    loss = (prediction - torch.tensor(sample["label"])).square()
    tensors = {
        "prediction": prediction,
        "preactivation": preactivation,
        "activation": activation,
        "kernel": network.convolution.weight,
        "weights": network.dense.weight,
        "input": x,
    }
    gradients = torch.autograd.grad(loss, list(tensors.values()))
    found = {
        "loss": loss,
        "prediction": prediction,
        "preactivation": preactivation,
        "activation": activation,
    } | {f"{name}_gradient": gradient for name, gradient in zip(tensors, gradients, strict=True)}
    return {
        name: tensor.detach().numpy().reshape(_SHAPES.get(name, (2, 2)))
        for name, tensor in found.items()
    }


def central_differences(sample: Sample, loss: Callable[[Sample], float]) -> dict[str, Array]:
    """The three parameter gradients from values of ``loss`` alone, moving one number at a time."""
    gradients = {}
    for name, output in (
        ("x", "input_gradient"),
        ("kernel", "kernel_gradient"),
        ("weights", "weights_gradient"),
    ):
        gradient = np.zeros_like(sample[name])
        for place in np.ndindex(gradient.shape):
            moved = []
            for step in (STEP, -STEP):
                array = sample[name].copy()
                array[place] += step
                moved.append((array[place], loss({**sample, name: array})))
            (right, above), (left, below) = moved
            gradient[place] = (above - below) / (right - left)
        gradients[output] = gradient
    return gradients
