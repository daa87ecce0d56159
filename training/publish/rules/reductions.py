"""Medians, products, searches, distances and layer norms, in operators that ONNX knows."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
LARGEST = 256  # factors of a product that are unrolled


def median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median along ``dim`` and its index, from a sort."""
    values, indices = torch.sort(x, dim=dim)
    middle = (x.shape[dim] - 1) // 2
    value, index = values.narrow(dim, middle, 1), indices.narrow(dim, middle, 1)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


def product(
    x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """The product along ``dim``, factor by factor."""
    size = x.shape[dim]
    if not isinstance(size, int) or size > LARGEST or size == 0:
        return NotImplemented
    if dtype is not None:
        x = x.to(dtype)
    parts = [x.select(dim, index) for index in range(size)]
    while len(parts) > 1:  # pairwise, so that rounding stays small and the graph shallow
        pairs = [first * second for first, second in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0].unsqueeze(dim) if keepdim else parts[0]


def cumulative_product(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Every product of the first factors along ``dim``."""
    size = x.shape[dim]
    if not isinstance(size, int) or size > LARGEST or size == 0:
        return NotImplemented
    if dtype is not None:
        x = x.to(dtype)
    parts = [x.select(dim, 0)]
    for index in range(1, size):
        parts.append(parts[-1] * x.select(dim, index))
    return torch.stack(parts, dim)


def running_extreme(
    better: Callable[[Tensor, Tensor], Tensor], x: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """The best so far along ``dim`` and where it was, by steps of 1, 2, 4, … (Hillis and Steele).

    ``better(later, earlier)`` says where the later of two numbers is to be kept.
    """
    size = x.shape[dim] if x.dim() else None
    if not isinstance(size, int):
        return NotImplemented
    shape = [1] * x.dim()
    shape[dim] = size
    values, places = x, torch.arange(size).reshape(shape).expand(x.shape)
    step = 1
    while step < size:
        later, earlier = (values.narrow(dim, start, size - step) for start in (step, 0))
        kept = better(later, earlier)
        there, before = (places.narrow(dim, start, size - step) for start in (step, 0))
        values, places = (
            torch.cat([each.narrow(dim, 0, step), chosen], dim)
            for each, chosen in (
                (values, torch.where(kept, later, earlier)),
                (places, torch.where(kept, there, before)),
            )
        )
        step *= 2
    return values, places


def running_log_sum(x: Tensor, dim: int) -> Tensor:
    """log of the sum of the exponentials up to here, by steps of 1, 2, 4, …; of −∞ as well."""
    size = x.shape[dim] if x.dim() else None
    if not isinstance(size, int):
        return NotImplemented
    step = 1
    while step < size:
        later, earlier = (x.narrow(dim, start, size - step) for start in (step, 0))
        large = torch.maximum(later, earlier)
        none = large == -math.inf
        gap = torch.where(none, 0.0, torch.minimum(later, earlier) - large)
        both = large + torch.log1p(gap.exp())
        x = torch.cat([x.narrow(dim, 0, step), torch.where(none, large, both)], dim)
        step *= 2
    return x


def search_sorted(
    boundaries: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each value would be inserted: how many boundaries are smaller (right: not larger)."""
    if sorter is not None or out_int32:
        return NotImplemented
    if boundaries.dim() > 1:  # a row of boundaries for every row of values
        boundaries = boundaries.unsqueeze(-2)
    below = (
        boundaries <= values.unsqueeze(-1)
        if right or side == "right"
        else boundaries < values.unsqueeze(-1)
    )
    return below.sum(-1)


def bucketize(
    values: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The same with its arguments the other way round."""
    return search_sorted(boundaries, values, out_int32=out_int32, right=right)


def distances(x: Tensor, y: Tensor, p: float, _mode: int | None = None) -> Tensor:
    """Distances of all pairs, (Σ |x − y|ᵖ) to 1/p: x [..., r, m], y [..., s, m] → [..., r, s]."""
    gap = x.unsqueeze(-2) - y.unsqueeze(-3)
    if p == 2:
        return gap.square().sum(-1).sqrt()
    if p == 1:
        return gap.abs().sum(-1)
    if math.isinf(p):
        return gap.abs().amax(-1)
    return NotImplemented if p == 0 else gap.abs().pow(float(p)).sum(-1).pow(1 / float(p))


def euclidean_distances(x: Tensor, y: Tensor) -> Tensor:
    """Those of p = 2, for which PyTorch has a second operator."""
    return distances(x, y, 2)


def distances_backward(gradient: Tensor, x: Tensor, y: Tensor, p: float, found: Tensor) -> Tensor:
    """Gradient by x: of p = 2, unit vectors from y to x, weighted; none where points coincide."""
    if p == 0:
        return NotImplemented
    gap = x.unsqueeze(-2) - y.unsqueeze(-3)
    weight, far = gradient.unsqueeze(-1), found.unsqueeze(-1)
    if p == 1:
        return (weight * gap.sign()).sum(-2)
    if math.isinf(p):
        return (weight * gap.sign() * (gap.abs() == far)).sum(-2)
    share = gap / torch.where(far == 0, 1.0, far)
    if p != 2:
        size = torch.where(share == 0, 1.0, share.abs()).pow(float(p) - 1)
        share = share.sign() * size
    return (torch.where(far == 0, 0.0, weight) * share).sum(-2)


def vector_norm(
    x: Tensor,
    order: float = 2,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """In float64, of an order p that isn't 0, 1, 2 or infinite: (Σ |x|ᵖ) to the power of 1/p.

    The exporter would round 1/p to float32.
    """
    if x.dtype != torch.float64 or dtype is not None or order in (0, 1, 2) or math.isinf(order):
        return NotImplemented
    axes = list(range(x.dim())) if dim is None else list(dim)
    return x.abs().pow(order).sum(axes, keepdim).pow(1 / order)


def stable_sort(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """ONNX's order of equal values is its own: their indices may differ, their values don't."""
    values, indices = torch.sort(x, dim, descending)
    return values, indices


def layer_norm(
    x: Tensor, sizes: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """In float64: normalised over the last ``sizes``, with the mean and 1 / deviation.

    ONNX's operator gives the latter two in float32, whatever x is; derivatives need them.
    """
    if x.dtype != torch.float64:
        return NotImplemented
    axes = list(range(-len(sizes), 0))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    result = centred * inverse
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias, mean, inverse


def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_variance: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    train: bool,
    eps: float,
    _wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """In float64: by input, weight and bias, of a norm over every axis but the second.

    ``mean`` and ``inverse``, 1 / deviation, are those of x and count if ``train``. PyTorch's own
    form divides by a number of elements that the exporter rounds to float32.
    """
    if x.dtype != torch.float64:
        return NotImplemented
    if not train and running_mean is not None and running_variance is not None:
        mean, inverse = running_mean, (running_variance + eps).rsqrt()
    axes = [axis for axis in range(x.dim()) if axis != 1]
    each = [1, -1, *[1] * (x.dim() - 2)]
    centred = x - mean.reshape(each)
    by_bias, product = gradient.sum(axes), (gradient * centred).sum(axes)
    slope = gradient
    if train:
        count = math.prod(x.shape[axis] for axis in axes)
        slope = slope - (by_bias / count).reshape(each)
        slope = slope - centred * (product * inverse.square() / count).reshape(each)
    scale = inverse if weight is None else inverse * weight
    return slope * scale.reshape(each), product * inverse, by_bias


RULES: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm.default: layer_norm,
    aten.native_batch_norm_backward.default: batch_norm_backward,
    aten.median.dim: median,
    aten.sort.stable: stable_sort,
    aten.linalg_vector_norm.default: vector_norm,
    aten.prod.dim_int: product,
    aten.cumprod.default: cumulative_product,
    aten.cummax.default: partial(running_extreme, torch.ge),
    aten.cummin.default: partial(running_extreme, torch.le),
    aten.logcumsumexp.default: running_log_sum,
    aten.searchsorted.Tensor: search_sorted,
    aten.bucketize.Tensor: bucketize,
    aten._cdist_forward.default: distances,
    aten._euclidean_dist.default: euclidean_distances,
    aten._cdist_backward.default: distances_backward,
}
