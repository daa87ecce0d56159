"""The reference: derivatives by ``torch.autograd``, eagerly, one direction at a time.

Written apart from ``rowwise``, without ``torch.func`` and without tiling, so that a mistake there
shows here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.functions.described import Described, Port
from training.publish.record import traceable

Tensors = tuple[Tensor, ...]


def value(described: Described, inputs: Sequence[Tensor]) -> Tensors:
    """The outputs."""
    with torch.no_grad(), traceable():
        return described.function(*inputs)


def vjp(described: Described, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Tensors:
    """Jᵀ cotangent for each input that can be varied; cotangents [n, k, …]."""
    axis = 1 if described.batched else 0
    columns = []
    for k in range(cotangents[0].shape[axis]):
        leaves, outputs = _run(described, inputs)
        total = _inner(
            [outputs[i] for i in described.of], [each.select(axis, k) for each in cotangents]
        )
        columns.append(_slope(total, leaves))
    return _stacked(described, columns)


def jvp(described: Described, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensors:
    """J tangent for each output; tangents [n, k, …], of an input without batch [k, …]."""
    axis = 1 if described.batched else 0
    columns = []
    for k in range(_directions(described, tangents[0])):
        leaves, outputs = _run(described, inputs)
        wanted = [outputs[i] for i in described.of]
        u = [torch.zeros_like(each, requires_grad=True) for each in wanted]
        pulled = _slope(_inner(wanted, u), leaves, keep=True)
        columns.append(_slope(_inner(pulled, _pick(described, tangents, k)), u))
    return tuple(torch.stack(each, axis) for each in zip(*columns, strict=True))


def hvp(
    described: Described,
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> Tensors:
    """The Hessian of Σ ⟨output, cotangent⟩ times the tangent; without cotangents they are 1."""
    axis = 1 if described.batched else 0
    columns = []
    for k in range(_directions(described, tangents[0])):
        leaves, outputs = _run(described, inputs)
        wanted = [outputs[i] for i in described.of]
        weights = (
            [each.select(axis, k) for each in cotangents]
            if cotangents
            else [torch.ones_like(each) for each in wanted]
        )
        slopes = _slope(_inner(wanted, weights), leaves, keep=True)
        columns.append(_slope(_inner(slopes, _pick(described, tangents, k)), leaves))
    return _stacked(described, columns)


def jacobian(described: Described, inputs: Sequence[Tensor], of: Sequence[int]) -> Tensors:
    """∂ output / ∂ input, [n, *output, *input] for every pair."""
    if _needs_single_rows(described, inputs):
        return _row_by_row(described, inputs, lambda row: jacobian(described, row, of))
    results: list[Tensor] = []
    for place in of:
        output = described.outputs[place]
        per_number = []
        for number in range(output.size):
            leaves, outputs = _run(described, inputs)
            per_number.append(_slope(_number(output, outputs[place], number).sum(), leaves))
        results += _reassembled(described, per_number, output.shape)
    return tuple(results)


def hessian(described: Described, inputs: Sequence[Tensor]) -> Tensors:
    """∂² output / ∂ a ∂ b, [n, *output, *a, *b] for every output and ordered pair."""
    if _needs_single_rows(described, inputs):
        return _row_by_row(described, inputs, lambda row: hessian(described, row))
    results: list[Tensor] = []
    for place in described.of:
        output = described.outputs[place]
        blocks: list[list[Tensor]] = []  # by number of the output, then pair
        for number in range(output.size):
            leaves, outputs = _run(described, inputs)
            total = _number(output, outputs[place], number).sum()
            slopes = _slope(total, leaves, keep=True)
            pairs: list[Tensor] = []
            for slope, wanted in zip(slopes, described.wrt, strict=True):
                port = described.inputs[wanted]
                per_number = [
                    _slope(_number(port, slope, index).sum(), leaves, keep=True)
                    for index in range(port.size)
                ]
                pairs += _reassembled(described, per_number, port.shape)
            blocks.append(pairs)
        axis = 1 if described.batched else 0
        for pair in zip(*blocks, strict=True):
            stacked = torch.stack(pair, axis)
            results.append(stacked.unflatten(axis, output.shape) if output.shape else pair[0])
    return tuple(each.detach() for each in results)


def _run(described: Described, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Tensors]:
    """Fresh leaves for the inputs that can be varied, and the outputs."""
    every = list(inputs)
    for place in described.wrt:
        every[place] = inputs[place].detach().clone().requires_grad_(True)
    with traceable(), torch.enable_grad():
        outputs = described.function(*every)
    return [every[place] for place in described.wrt], outputs


def _slope(total: Tensor, leaves: Sequence[Tensor], *, keep: bool = False) -> Tensors:
    """Gradient of a number; zeros by what it does not depend on."""
    if not total.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    with traceable(), torch.enable_grad():
        found = torch.autograd.grad(
            total, list(leaves), create_graph=keep, retain_graph=True, allow_unused=True
        )
    return tuple(
        torch.zeros_like(leaf) if each is None else each
        for each, leaf in zip(found, leaves, strict=True)
    )


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    with torch.enable_grad():
        total: Tensor = sum(
            ((a * b).sum() for a, b in zip(first, second, strict=True)), start=torch.zeros(())
        )
    return total


def _number(port: Port, tensor: Tensor, index: int) -> Tensor:
    """One number of every row; of what has no batch the number itself."""
    with torch.enable_grad():
        return (
            tensor.reshape(len(tensor), -1)[:, index] if port.batched else tensor.flatten()[index]
        )


def _directions(described: Described, tangent: Tensor) -> int:
    first = described.inputs[described.wrt[0]]
    return tangent.shape[1 if first.batched else 0]


def _pick(described: Described, tangents: Sequence[Tensor], k: int) -> list[Tensor]:
    return [
        tangent.select(1 if described.inputs[place].batched else 0, k)
        for place, tangent in zip(described.wrt, tangents, strict=True)
    ]


def _stacked(described: Described, columns: Sequence[Tensors]) -> Tensors:
    """Results by direction as one tensor for each input: [n, k, …], without batch [k, …]."""
    return tuple(
        torch.stack(each, 1 if described.inputs[place].batched else 0)
        for place, each in zip(described.wrt, zip(*columns, strict=True), strict=True)
    )


def _needs_single_rows(described: Described, inputs: Sequence[Tensor]) -> bool:
    """Autograd sums over the rows what an input without batch gets from each."""
    shared = any(not described.inputs[place].batched for place in described.wrt)
    return described.batched and shared and _count(described, inputs) > 1


def _count(described: Described, inputs: Sequence[Tensor]) -> int:
    return next(
        len(tensor) for tensor, port in zip(inputs, described.inputs, strict=True) if port.batched
    )


def _row_by_row(described: Described, inputs: Sequence[Tensor], of_row: object) -> Tensors:
    """Each row alone, where an input without batch has a derivative for every row."""
    found = [
        of_row(  # type: ignore[operator]
            [
                tensor[row : row + 1] if port.batched else tensor
                for tensor, port in zip(inputs, described.inputs, strict=True)
            ]
        )
        for row in range(_count(described, inputs))
    ]
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def _reassembled(
    described: Described, per_number: Sequence[Tensors], shape: Sequence[int]
) -> list[Tensor]:
    """Slopes of every number of a tensor, as [n, *shape, *input] for each input."""
    results = []
    for place, slopes in zip(described.wrt, zip(*per_number, strict=True), strict=True):
        port = described.inputs[place]
        if not described.batched:
            results.append(torch.stack(slopes).reshape(*shape, *port.shape))
        elif port.batched:
            results.append(torch.stack(slopes, 1).reshape(-1, *shape, *port.shape))
        else:  # a single row: see _row_by_row
            results.append(torch.stack(slopes).reshape(1, *shape, *port.shape))
    return results
