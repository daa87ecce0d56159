"""Derivatives of a function of rows, in reverse mode only.

Forward mode and ``vmap`` of a derivative don't survive export. Everything here is made of one or
two pullbacks on a batch of rows; what asks for several directions a row repeats it (``arranged``).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from training.functions.function_spec import FunctionSpec
from training.functions.pullbacks import Pullback, either_way
from training.publish.record import functional

Rows = Callable[..., tuple[Tensor, ...]]


def rows_of(spec: FunctionSpec) -> Rows:
    """The function with every input given by row: one without batch then has a first size too.

    So that each row can have its own derivative by such an input.
    """
    function = functional(spec.function)
    if all(tensor_spec.batched for tensor_spec in spec.inputs):
        return function

    def one(*values: Tensor) -> tuple[Tensor, ...]:
        if not spec.batched:
            return function(*values)
        inputs = [
            value.unsqueeze(0) if tensor_spec.batched else value
            for value, tensor_spec in zip(values, spec.inputs, strict=True)
        ]
        return tuple(output.squeeze(0) for output in function(*inputs))

    mapped: Rows = vmap(one)
    return mapped


def _varying(
    rows: Rows, inputs: Sequence[Tensor], wrt: Sequence[int], of: Sequence[int]
) -> Callable[..., tuple[Tensor, ...]]:
    """``rows`` as a function of the inputs ``wrt`` alone, giving the outputs ``of``."""

    def varied(*values: Tensor) -> tuple[Tensor, ...]:
        every = list(inputs)
        for place, value in zip(wrt, values, strict=True):
            every[place] = value
        outputs = rows(*every)
        return tuple(outputs[place] for place in of)

    return varied


def vjp_rows(spec: FunctionSpec, of: Sequence[int]) -> Rows:
    """(inputs, a cotangent for each of the outputs ``of``) → Jᵀ cotangent for each ``wrt``."""
    rows, wrt, count = rows_of(spec), spec.wrt, len(spec.inputs)

    def pulled(pullback: Pullback, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        inputs, cotangents = arguments[:count], tuple(arguments[count:])
        _, pull = pullback(_varying(rows, inputs, wrt, of), *(inputs[i] for i in wrt))
        result: tuple[Tensor, ...] = pull(cotangents)
        return result

    return either_way(pulled)


def jvp_rows(spec: FunctionSpec) -> Rows:
    """(inputs, a tangent for each ``wrt``) → J tangent for each of ``of``.

    Jᵀu is linear in u, so that the pullback of u ↦ Jᵀu, at any u, is J.
    """
    rows, wrt, of = rows_of(spec), spec.wrt, spec.of
    count = len(spec.inputs)

    def pushed(pullback: Pullback, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        inputs, tangents = arguments[:count], tuple(arguments[count:])
        outputs, pull = pullback(_varying(rows, inputs, wrt, of), *(inputs[i] for i in wrt))
        anywhere = tuple(torch.zeros_like(output) for output in outputs)
        _, push = pullback(lambda *u: pull(u), *anywhere)
        result: tuple[Tensor, ...] = push(tangents)
        return result

    return either_way(pushed)


def hvp_rows(spec: FunctionSpec, of: Sequence[int]) -> Rows:
    """(inputs, tangents, cotangents) → the Hessian of Σ ⟨output, cotangent⟩ times the tangents.

    Reverse over reverse: the gradient's pullback; the Hessian is symmetric.
    """
    rows, wrt, count = rows_of(spec), spec.wrt, len(spec.inputs)

    def curved(pullback: Pullback, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        inputs = arguments[:count]
        tangents = arguments[count : count + len(wrt)]
        cotangents = arguments[count + len(wrt) :]
        outputs_of = _varying(rows, inputs, wrt, of)

        def weighted(*values: Tensor) -> Tensor:
            parts = [
                (output * cotangent).sum()
                for output, cotangent in zip(outputs_of(*values), cotangents, strict=True)
            ]
            total: Tensor = sum(parts[1:], start=parts[0])
            return total

        def slope(*values: Tensor) -> tuple[Tensor, ...]:
            total, pull = pullback(weighted, *values)
            slopes: tuple[Tensor, ...] = pull(torch.ones_like(total))
            return slopes

        _, pull = pullback(slope, *(inputs[i] for i in wrt))
        result: tuple[Tensor, ...] = pull(tuple(tangents))
        return result

    return either_way(curved)
