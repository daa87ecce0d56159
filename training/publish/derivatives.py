"""Derivatives by PyTorch's autograd, as functions that ``export`` can trace.

Each is ordinary eager PyTorch: called with tensors it differentiates, traced by ``make_fx`` the
backward pass becomes part of the graph.
"""

import copy
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.func import grad

TensorFunction = Callable[..., Tensor]
SaliencyMethod = Literal["gradient", "smoothgrad", "integrated"]
_Network = TypeVar("_Network", bound=nn.Module)


def frozen(network: _Network) -> _Network:
    """A copy of ``network`` on the CPU, in eval mode, its parameters constant and contiguous.

    The network itself stays as it is. Tracing needs constants: a parameter that still asks for a
    gradient can't be lifted into a graph.
    """
    duplicate = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for tensor in (*duplicate.parameters(), *duplicate.buffers()):
        tensor.data = tensor.data.contiguous()
    return duplicate


def derivative(function: TensorFunction, order: int = 1) -> TensorFunction:
    """The ``order``-th derivative of a function of one variable, for a batch of points.

    ``function`` maps x [n] to y [n], each y depending on its own x alone: the gradient of their sum
    so holds the derivative of each, and no batch of tiny matrices is needed. The result maps x [n]
    to d^order y / dx^order [n], by reverse-mode autograd nested ``order`` times.

    Raises ValueError if ``order`` is below 1.
    """
    if order < 1:
        raise ValueError(f"a derivative of order {order} was asked for; 1 is the least")
    lower = derivative(function, order - 1) if order > 1 else function

    def total(x: Tensor) -> Tensor:
        return lower(x).sum()

    differentiated: TensorFunction = grad(total)
    return differentiated


def curve_derivative(network: nn.Module, order: int) -> TensorFunction:
    """The ``order``-th derivative of a curve's network: in closed form where it has one.

    A network has one if it has a method ``derivative(x, order)``; otherwise it is autograd's.
    """
    closed_form = getattr(network, "derivative", None)
    if closed_form is None:
        return derivative(network, order)

    def differentiated(x: Tensor) -> Tensor:
        result: Tensor = closed_form(x, order)
        return result

    return differentiated


def input_gradient(logits: TensorFunction, x: Tensor, label: Tensor) -> Tensor:
    """∂ logit[label] / ∂x for each example: x [n, ...], label int64 [n] → [n, ...].

    The examples of a batch don't touch one another in eval mode, so that the gradient of the sum
    over the batch holds every example's own.
    """

    def score(batch: Tensor) -> Tensor:
        return logits(batch).gather(1, label.unsqueeze(1)).sum()

    gradient: Tensor = grad(score)(x)
    return gradient


def saliency(
    logits: TensorFunction,
    prepare: TensorFunction,
    *,
    method: SaliencyMethod = "gradient",
    steps: int = 16,
    noise: float = 0.15,
    seed: int = 0,
    input_shape: tuple[int, int, int] = (3, 32, 32),
) -> TensorFunction:
    """What in an image speaks for a class: (image uint8 [n,h,w,c], class int64 [n]) → [n,h,w] ≥ 0.

    ``prepare`` turns the image into the network's normalised float input [n,c,h,w]; ``logits``
    maps that to class scores [n,classes]. The score is the logit of the class, before softmax.
    Each method reduces over channels by the Euclidean norm:

    - ``gradient``: |∂ score / ∂x| (Simonyan, Vedaldi, Zisserman, arXiv 1312.6034).
    - ``smoothgrad``: the gradient averaged over ``steps`` noisy copies of x, then its magnitude
      (Smilkov et al., arXiv 1706.03825). ``noise`` is the standard deviation in units of the
      normalised input, ``input_shape`` its [c,h,w]; the noise is drawn here, once, from ``seed``,
      so that the same image always gets the same map.
    - ``integrated``: |(x − x₀) · mean of ∂ score / ∂x along the straight line from x₀ to x|, in
      ``steps`` midpoints (Sundararajan, Taly, Yan, arXiv 1703.01365). The baseline x₀ is the zero
      of the normalised input: the mean image colour.

    The last two run ``steps`` copies of each image as one larger batch.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps were asked for; 1 is the least")
    generator = torch.Generator().manual_seed(seed)
    jitter = noise * torch.randn(steps, *input_shape, generator=generator)

    def averaged(x: Tensor, label: Tensor, copies: Tensor) -> Tensor:
        """Mean of the gradient over ``copies`` [n, steps, c, h, w] of the batch x [n, c, h, w]."""
        repeated = label.unsqueeze(1).expand(-1, steps).reshape(-1)
        gradient = input_gradient(logits, copies.reshape(-1, *x.shape[1:]), repeated)
        return gradient.reshape(-1, steps, *x.shape[1:]).mean(1)

    def plain(x: Tensor, label: Tensor) -> Tensor:
        return input_gradient(logits, x, label)

    def smoothgrad(x: Tensor, label: Tensor) -> Tensor:
        return averaged(x, label, x.unsqueeze(1) + jitter.to(x.dtype))

    def integrated(x: Tensor, label: Tensor) -> Tensor:
        fractions = (torch.arange(steps, dtype=x.dtype) + 0.5) / steps
        line = x.unsqueeze(1) * fractions.reshape(1, steps, 1, 1, 1)
        return x * averaged(x, label, line)

    attribution = {"gradient": plain, "smoothgrad": smoothgrad, "integrated": integrated}[method]

    def saliency_map(image: Tensor, label: Tensor) -> Tensor:
        return attribution(prepare(image), label).square().sum(1).sqrt()

    return saliency_map
