"""Gradients of pooling, and pooling in float64, for which ONNX Runtime has no kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from training.publish.rules.convolution import _places

aten = torch.ops.aten


def max_pool_backward(axes: int, gradient: Tensor, x: Tensor, *settings: Any) -> Tensor:
    """Gradient of max pooling: each output's gradient goes to the input that was the maximum.

    ``axes`` of them are pooled, the last ones. The last of ``settings`` are the indices of those
    inputs, counted in one channel, row by row; what comes before them (kernel size, stride, …) has
    had its effect on them.
    """
    indices: Tensor = settings[-1]
    zeros = torch.zeros_like(x).flatten(-axes)
    scattered = zeros.scatter_add(-1, indices.flatten(-axes), gradient.flatten(-axes))
    return scattered.reshape(x.shape)


def adaptive_max_pool(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Maxima over windows of nearly equal size, and their places, counted in one channel.

    Each window is read from a table of places [outputs, places of the largest window]; a smaller
    one has its last place more than once.
    """
    axes = len(sizes)
    rows = x.flatten(-axes)
    shape = [*x.shape[:-axes], *sizes]
    if all(size == 1 for size in sizes):  # one window: no table, which costs time in each request
        values, places = rows.max(-1)
        return values.reshape(shape), places.reshape(shape)
    table = torch.zeros([1] * (2 * axes), dtype=torch.int64)
    for axis, outputs in enumerate(sizes):
        inputs = x.shape[axis - axes]
        start, end = _adaptive_windows(inputs, outputs)
        widest = -(-inputs // outputs) + (inputs % outputs != 0)
        place = torch.minimum(start.unsqueeze(1) + torch.arange(widest), end.unsqueeze(1) - 1)
        along = [1] * (2 * axes)
        along[axis], along[axes + axis] = outputs, widest
        table = table * inputs + place.reshape(along)
    table = table.flatten(axes).flatten(0, axes - 1)
    seen = rows.index_select(-1, table.flatten()).unflatten(-1, table.shape)
    values, which = seen.max(-1, keepdim=True)
    places = table.expand(seen.shape).gather(-1, which)
    return values.reshape(shape), places.reshape(shape)


def avg_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Tensor:
    """Gradient of average pooling: each input gets its share from every window that saw it.

    The windows' numbers of elements divide the gradient; then every place of the window adds the
    gradient, spread by the stride, to the elements that it saw.
    """
    axes = len(kernel)
    stride = stride or kernel
    padding = _full(padding, axes)
    stride = _full(stride, axes)
    kernel = _full(kernel, axes)
    lead = gradient.dim() - axes
    share = gradient / _counts(gradient, x, kernel, stride, padding, count_include_pad, divisor)
    sizes = [x.shape[lead + axis] + 2 * padding[axis] for axis in range(axes)]
    # With ceil_mode the last window may reach beyond the padding.
    reach = [
        max(sizes[axis], (gradient.shape[lead + axis] - 1) * stride[axis] + kernel[axis])
        for axis in range(axes)
    ]
    spread = share
    for axis in range(axes):
        size = spread.shape[lead + axis]
        after = axes - axis - 1
        between = torch.nn.functional.pad(
            spread.unsqueeze(lead + axis + 1), [0, 0] * after + [0, stride[axis] - 1]
        )
        flat = between.flatten(lead + axis, lead + axis + 1)
        spread = flat.narrow(lead + axis, 0, (size - 1) * stride[axis] + 1)
    parts: list[Tensor] = []
    for place in _places(kernel):
        pads: list[int] = []
        for axis in reversed(range(axes)):
            pads += [place[axis], reach[axis] - place[axis] - spread.shape[lead + axis]]
        part = torch.nn.functional.pad(spread, pads)
        parts.append(part)
    total = torch.stack(parts).sum(0)
    for axis in range(axes):
        total = total.narrow(lead + axis, padding[axis], x.shape[lead + axis])
    return total


def _full(sizes: Sequence[int], axes: int) -> list[int]:
    return list(sizes) * axes if len(sizes) == 1 else list(sizes)


def _counts(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """How many elements each window averages, [*output sizes]."""
    axes = len(kernel)
    lead = gradient.dim() - axes
    counts = torch.ones((), dtype=gradient.dtype)
    if divisor is not None:
        return counts * divisor
    for axis in range(axes):
        size, pad = x.shape[lead + axis], padding[axis]
        low, high = (-pad, size + pad) if count_include_pad else (0, size)
        starts = torch.arange(gradient.shape[lead + axis]) * stride[axis] - pad
        seen = (starts + kernel[axis]).clamp(max=high) - starts.clamp(min=low)
        counts = counts.unsqueeze(-1) * seen.to(gradient.dtype)
    return counts


def adaptive_avg_pool_backward(axes: int, gradient: Tensor, x: Tensor) -> Tensor:
    """Every output element shares its gradient among the input elements of its window."""
    result = gradient
    for axis in range(-axes, 0):
        share = _adaptive_matrix(x.shape[axis], gradient.shape[axis], gradient.dtype)
        result = torch.matmul(result.transpose(axis, -1), share).transpose(axis, -1)
    return result


def adaptive_avg_pool(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Means over windows of nearly equal size, each axis a matrix product."""
    result = x
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        share = _adaptive_matrix(x.shape[axis], size, x.dtype)
        result = torch.matmul(result.transpose(axis, -1), share.T).transpose(axis, -1)
    return result


def _adaptive_matrix(inputs: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """The share of each input in each output [outputs, inputs]."""
    start, end = _adaptive_windows(inputs, outputs)
    place = torch.arange(inputs)
    inside = (place >= start.unsqueeze(1)) & (place < end.unsqueeze(1))
    return inside.to(dtype) / (end - start).unsqueeze(1).to(dtype)


def _adaptive_windows(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """The first place of each output's window, and the first after it, as PyTorch lays them."""
    index = torch.arange(outputs)
    return index * inputs // outputs, ((index + 1) * inputs + outputs - 1) // outputs


def avg_pool(
    axes: int,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """In float64: the sum of strided slices of the padded input, one for each place."""
    if x.dtype != torch.float64 or ceil_mode:
        return NotImplemented
    kernel, padding = _full(kernel, axes), _full(padding, axes)
    stride = _full(stride, axes) if stride else kernel
    padded = torch.nn.functional.pad(x, [size for size in reversed(padding) for _ in range(2)])
    lead = x.dim() - axes
    sizes = [(padded.shape[lead + axis] - kernel[axis]) // stride[axis] + 1 for axis in range(axes)]
    parts: list[Tensor] = []
    for place in _places(kernel):
        part = padded
        for axis, index in enumerate(place):
            end = index + (sizes[axis] - 1) * stride[axis] + 1
            part = aten.slice.Tensor(part, lead + axis, index, end, stride[axis])
        parts.append(part)
    total = torch.stack(parts).sum(0)
    return total / _counts(total, x, kernel, stride, padding, count_include_pad, divisor)


RULES: dict[Any, Callable[..., Any]] = {
    aten.max_pool2d_with_indices_backward.default: partial(max_pool_backward, 2),
    aten.max_pool3d_with_indices_backward.default: partial(max_pool_backward, 3),
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.adaptive_max_pool3d.default: adaptive_max_pool,
    aten.adaptive_max_pool2d_backward.default: partial(max_pool_backward, 2),
    aten.adaptive_max_pool3d_backward.default: partial(max_pool_backward, 3),
    aten.avg_pool2d.default: partial(avg_pool, 2),
    aten.avg_pool3d.default: partial(avg_pool, 3),
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten.avg_pool3d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool,
    aten._adaptive_avg_pool3d.default: adaptive_avg_pool,
    aten._adaptive_avg_pool2d_backward.default: partial(adaptive_avg_pool_backward, 2),
    aten._adaptive_avg_pool3d_backward.default: partial(adaptive_avg_pool_backward, 3),
}
