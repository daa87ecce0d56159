"""Derivatives by PyTorch's autograd, as functions that ``export`` can trace.

Each is ordinary eager PyTorch: called with tensors it differentiates, traced by ``make_fx`` the
backward pass becomes part of the graph. ``DECOMPOSITIONS`` rewrites those backward operators for
which the ONNX exporter has no rule, into forward operators for which it has one.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeVar

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


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *settings: Any
) -> tuple[Tensor, None, None]:
    """Gradient of a convolution with respect to its input, as a transposed convolution.

    A convolution is linear in its input, y = Cx; the gradient is Cᵀg, which is what a transposed
    convolution with the same weights, stride and padding computes. A stride may leave rows at the
    far edge that no window reached; ``unreached`` gives them back, as zeros.
    """
    _, stride, padding, dilation, transposed, _, groups, wanted = settings
    if transposed or list(wanted) != [True, False, False]:
        raise NotImplementedError("only the input gradient of an ordinary convolution is traced")
    unreached = [
        x.shape[2 + axis]
        - (gradient.shape[2 + axis] - 1) * stride[axis]
        + 2 * padding[axis]
        - dilation[axis] * (weight.shape[2 + axis] - 1)
        - 1
        for axis in range(len(stride))
    ]
    back = torch.ops.aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, True, unreached, groups
    )
    return back, None, None


def _max_pool_backward(gradient: Tensor, x: Tensor, *settings: Any) -> Tensor:
    """Gradient of max pooling: each output's gradient goes to the input that was the maximum.

    The last of ``settings`` are the indices of those inputs, counted in one channel's plane, row
    by row; what comes before them (kernel size, stride, …) has had its effect on them.
    """
    indices: Tensor = settings[-1]
    zeros = torch.zeros_like(x).flatten(-2)
    scattered = zeros.scatter_add(-1, indices.flatten(-2), gradient.flatten(-2))
    return scattered.reshape(x.shape)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    torch.ops.aten.adaptive_max_pool2d_backward.default: _max_pool_backward,
}
