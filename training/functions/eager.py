"""The reference: derivatives by ``torch.autograd``, eagerly, one direction at a time.

Written apart from ``rowwise``, without ``torch.func`` and without tiling, so that a mistake there
shows here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.functions.function_spec import FunctionSpec, TensorSpec
from training.publish.record import traceable

Tensors = tuple[Tensor, ...]


def value(spec: FunctionSpec, inputs: Sequence[Tensor]) -> Tensors:
    """The outputs."""
    with torch.enable_grad(), traceable():  # for a function that itself differentiates
        outputs = spec.function(*(each.detach() for each in inputs))
    return tuple(output.detach() for output in outputs)


def vjp(spec: FunctionSpec, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Tensors:
    """Jᵀ cotangent for each input that can be varied; cotangents [n, k, …]."""
    axis = 1 if spec.batched else 0
    columns = []
    for k in range(cotangents[0].shape[axis]):
        leaves, outputs = _run(spec, inputs)
        total = _inner([outputs[i] for i in spec.of], [each.select(axis, k) for each in cotangents])
        columns.append(_slope(total, leaves))
    return _stacked(spec, columns)


def jvp(spec: FunctionSpec, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensors:
    """J tangent for each output; tangents [n, k, …], of an input without batch [k, …]."""
    axis = 1 if spec.batched else 0
    columns = []
    for k in range(_directions(spec, tangents[0])):
        leaves, outputs = _run(spec, inputs)
        wanted = [outputs[i] for i in spec.of]
        u = [torch.zeros_like(each, requires_grad=True) for each in wanted]
        pulled = _slope(_inner(wanted, u), leaves, keep=True)
        columns.append(_slope(_inner(pulled, _pick(spec, tangents, k)), u))
    return tuple(torch.stack(each, axis) for each in zip(*columns, strict=True))


def hvp(
    spec: FunctionSpec,
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> Tensors:
    """The Hessian of Σ ⟨output, cotangent⟩ times the tangent; without cotangents they are 1."""
    axis = 1 if spec.batched else 0
    columns = []
    for k in range(_directions(spec, tangents[0])):
        leaves, outputs = _run(spec, inputs)
        wanted = [outputs[i] for i in spec.of]
        weights = (
            [each.select(axis, k) for each in cotangents]
            if cotangents
            else [torch.ones_like(each) for each in wanted]
        )
        slopes = _slope(_inner(wanted, weights), leaves, keep=True)
        columns.append(_slope(_inner(slopes, _pick(spec, tangents, k)), leaves))
    return _stacked(spec, columns)


def jacobian(spec: FunctionSpec, inputs: Sequence[Tensor], of: Sequence[int]) -> Tensors:
    """∂ output / ∂ input, [n, *output, *input] for every pair."""
    if _needs_single_rows(spec, inputs):
        return _row_by_row(spec, inputs, lambda row: jacobian(spec, row, of))
    results: list[Tensor] = []
    for place in of:
        output = spec.outputs[place]
        per_number = []
        for number in range(output.size):
            leaves, outputs = _run(spec, inputs)
            per_number.append(_slope(_number(output, outputs[place], number).sum(), leaves))
        results += _reassembled(spec, per_number, output.shape)
    return tuple(results)


def hessian(spec: FunctionSpec, inputs: Sequence[Tensor]) -> Tensors:
    """∂² output / ∂ a ∂ b, [n, *output, *a, *b] for every output and ordered pair."""
    if _needs_single_rows(spec, inputs):
        return _row_by_row(spec, inputs, lambda row: hessian(spec, row))
    results: list[Tensor] = []
    for place in spec.of:
        output = spec.outputs[place]
        blocks: list[list[Tensor]] = []  # by number of the output, then pair
        for number in range(output.size):
            leaves, outputs = _run(spec, inputs)
            total = _number(output, outputs[place], number).sum()
            slopes = _slope(total, leaves, keep=True)
            pairs: list[Tensor] = []
            for slope, wanted in zip(slopes, spec.wrt, strict=True):
                tensor_spec = spec.inputs[wanted]
                per_number = [
                    _slope(_number(tensor_spec, slope, index).sum(), leaves, keep=True)
                    for index in range(tensor_spec.size)
                ]
                pairs += _reassembled(spec, per_number, tensor_spec.shape)
            blocks.append(pairs)
        axis = 1 if spec.batched else 0
        for pair in zip(*blocks, strict=True):
            stacked = torch.stack(pair, axis)
            results.append(stacked.unflatten(axis, output.shape) if output.shape else pair[0])
    return tuple(each.detach() for each in results)


def _run(spec: FunctionSpec, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Tensors]:
    """Fresh leaves for the inputs that can be varied, and the outputs."""
    every = list(inputs)
    for place in spec.wrt:
        every[place] = inputs[place].detach().clone().requires_grad_(True)
    with traceable(), torch.enable_grad():
        outputs = spec.function(*every)
    return [every[place] for place in spec.wrt], outputs


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


def _number(tensor_spec: TensorSpec, tensor: Tensor, index: int) -> Tensor:
    """One number of every row; of what has no batch the number itself."""
    with torch.enable_grad():
        return (
            tensor.reshape(len(tensor), -1)[:, index]
            if tensor_spec.batched
            else tensor.flatten()[index]
        )


def _directions(spec: FunctionSpec, tangent: Tensor) -> int:
    first = spec.inputs[spec.wrt[0]]
    return tangent.shape[1 if first.batched else 0]


def _pick(spec: FunctionSpec, tangents: Sequence[Tensor], k: int) -> list[Tensor]:
    return [
        tangent.select(1 if spec.inputs[place].batched else 0, k)
        for place, tangent in zip(spec.wrt, tangents, strict=True)
    ]


def _stacked(spec: FunctionSpec, columns: Sequence[Tensors]) -> Tensors:
    """Results by direction as one tensor for each input: [n, k, …], without batch [k, …]."""
    return tuple(
        torch.stack(each, 1 if spec.inputs[place].batched else 0)
        for place, each in zip(spec.wrt, zip(*columns, strict=True), strict=True)
    )


def _needs_single_rows(spec: FunctionSpec, inputs: Sequence[Tensor]) -> bool:
    """Autograd sums over the rows what an input without batch gets from each."""
    shared = any(not spec.inputs[place].batched for place in spec.wrt)
    return spec.batched and shared and _count(spec, inputs) > 1


def _count(spec: FunctionSpec, inputs: Sequence[Tensor]) -> int:
    return next(
        len(tensor)
        for tensor, tensor_spec in zip(inputs, spec.inputs, strict=True)
        if tensor_spec.batched
    )


def _row_by_row(spec: FunctionSpec, inputs: Sequence[Tensor], of_row: object) -> Tensors:
    """Each row alone, where an input without batch has a derivative for every row."""
    found = [
        of_row(  # type: ignore[operator]
            [
                tensor[row : row + 1] if tensor_spec.batched else tensor
                for tensor, tensor_spec in zip(inputs, spec.inputs, strict=True)
            ]
        )
        for row in range(_count(spec, inputs))
    ]
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def _reassembled(
    spec: FunctionSpec, per_number: Sequence[Tensors], shape: Sequence[int]
) -> list[Tensor]:
    """Slopes of every number of a tensor, as [n, *shape, *input] for each input."""
    results = []
    for place, slopes in zip(spec.wrt, zip(*per_number, strict=True), strict=True):
        tensor_spec = spec.inputs[place]
        if not spec.batched:
            results.append(torch.stack(slopes).reshape(*shape, *tensor_spec.shape))
        elif tensor_spec.batched:
            results.append(torch.stack(slopes, 1).reshape(-1, *shape, *tensor_spec.shape))
        else:  # a single row: see _row_by_row
            results.append(torch.stack(slopes).reshape(1, *shape, *tensor_spec.shape))
    return results
