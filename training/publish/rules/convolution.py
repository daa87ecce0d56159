"""Convolution: its gradients, which ONNX has no operator for, and float64, which has no kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a convolution with respect to input, weight and bias, as convolutions."""
    axes = len(stride)
    by_input = by_weight = by_bias = None
    if wanted[0]:
        by_input = (
            aten.convolution(
                gradient, weight, None, stride, padding, dilation, False, [0] * axes, groups
            )
            if transposed
            else _by_input(gradient, x, weight, stride, padding, dilation, groups)
        )
    if wanted[1]:
        # A transposed convolution swaps the roles of its input and its output.
        pair = (gradient, x) if transposed else (x, gradient)
        by_weight = _by_weight(*pair, weight, stride, padding, dilation, groups)
    if wanted[2]:
        by_bias = gradient.sum([0, *range(2, gradient.dim())])
    return by_input, by_weight, by_bias


def _by_input(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution is linear in its input, y = Cx; the gradient is Cᵀg, its transpose.

    A stride may leave rows at the far edge that no window reached; ``unreached`` gives them back,
    as zeros.
    """
    unreached = [
        x.shape[2 + axis]
        - (gradient.shape[2 + axis] - 1) * stride[axis]
        + 2 * padding[axis]
        - dilation[axis] * (weight.shape[2 + axis] - 1)
        - 1
        for axis in range(len(stride))
    ]
    result: Tensor = aten.convolution(
        gradient, weight, None, stride, padding, dilation, True, unreached, groups
    )
    return result


def _by_weight(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """For each place of the kernel, the inner product of the output's gradient with what it saw.

    Padded by hand, so that a place of the kernel sees a strided slice of the input.
    """
    axes = len(stride)
    padded = torch.nn.functional.pad(x, [size for size in reversed(padding) for _ in range(2)])
    per_group = [
        (
            padded.narrow(1, group * padded.shape[1] // groups, padded.shape[1] // groups),
            gradient.narrow(1, group * gradient.shape[1] // groups, gradient.shape[1] // groups),
        )
        for group in range(groups)
    ]
    results = []
    for seen, sent in per_group:
        flat = sent.transpose(0, 1).flatten(1)  # [out, rows·places]
        columns = [
            flat @ _window(seen, place, gradient, stride, dilation).transpose(0, 1).flatten(1).T
            for place in _places(weight.shape[2:])
        ]
        results.append(torch.stack(columns, -1))
    result = torch.cat(results) if groups > 1 else results[0]
    return result.unflatten(-1, list(weight.shape[2:])) if axes else result


def _places(kernel: Sequence[int]) -> list[tuple[int, ...]]:
    """Every index into a kernel, row by row."""
    places: list[tuple[int, ...]] = [()]
    for size in kernel:
        places = [(*place, index) for place in places for index in range(size)]
    return places


def _window(
    padded: Tensor,
    place: Sequence[int],
    output: Tensor,
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """What the kernel's ``place`` sees of the padded input, as large as the output."""
    for axis, index in enumerate(place):
        start = index * dilation[axis]
        end = start + (output.shape[2 + axis] - 1) * stride[axis] + 1
        padded = aten.slice.Tensor(padded, 2 + axis, start, end, stride[axis])
    return padded


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """In float64, for which ONNX Runtime has no kernel: a matrix product for each kernel place."""
    if x.dtype != torch.float64:
        return NotImplemented
    axes = len(stride)
    if transposed:
        result = _transposed(x, weight, stride, padding, dilation, output_padding, groups)
    else:
        sizes = [
            (
                x.shape[2 + axis]
                + 2 * padding[axis]
                - dilation[axis] * (weight.shape[2 + axis] - 1)
                - 1
            )
            // stride[axis]
            + 1
            for axis in range(axes)
        ]
        shape = x.new_empty((1, 1, *sizes))
        padded = torch.nn.functional.pad(x, [size for size in reversed(padding) for _ in range(2)])
        grouped_weight = weight.unflatten(0, (groups, -1))  # [groups, out, in, *kernel]
        result = torch.stack(
            [
                _per_channel(
                    _window(padded, place, shape, stride, dilation),
                    grouped_weight[(..., *place)],
                    groups,
                )
                for place in _places(weight.shape[2:])
            ]
        ).sum(0)
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def _per_channel(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A kernel of one place: x [n, groups·in, …], weight [groups, out, in] → [n, groups·out, …]."""
    rows, sizes = x.shape[0], x.shape[2:]
    grouped = x.reshape(rows, groups, x.shape[1] // groups, -1)
    product = torch.matmul(weight, grouped)
    return product.reshape(rows, groups * weight.shape[1], *sizes)


def _transposed(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Each kernel place adds its product to every stride-th element, shifted by the place."""
    axes = len(stride)
    spread = x
    for axis in range(axes):  # zeros between the elements
        size = spread.shape[2 + axis]
        between = torch.nn.functional.pad(
            spread.unsqueeze(3 + axis), [0, 0] * (axes - axis - 1) + [0, stride[axis] - 1]
        )
        flat = between.flatten(2 + axis, 3 + axis)
        spread = flat.narrow(2 + axis, 0, (size - 1) * stride[axis] + 1)
    grouped_weight = weight.unflatten(0, (groups, -1)).transpose(1, 2)  # [groups, out, in, …]
    kernel = weight.shape[2:]
    sizes = [
        (x.shape[2 + axis] - 1) * stride[axis]
        + dilation[axis] * (kernel[axis] - 1)
        + 1
        + output_padding[axis]
        for axis in range(axes)
    ]
    parts: list[Tensor] = []
    for place in _places(kernel):
        part = _per_channel(spread, grouped_weight[(..., *place)], groups)
        pads: list[int] = []
        for axis in reversed(range(axes)):
            start = place[axis] * dilation[axis]
            pads += [start, sizes[axis] - start - part.shape[2 + axis]]
        part = torch.nn.functional.pad(part, pads)
        parts.append(part)
    total = torch.stack(parts).sum(0)
    for axis in range(axes):
        total = total.narrow(2 + axis, padding[axis], sizes[axis] - 2 * padding[axis])
    return total


RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.convolution.default: convolution,
}
