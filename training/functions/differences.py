"""Eager derivatives against central differences: is what autograd gives the derivative at all?

A ``detach()``, a straight-through estimator or a backward pass written wrongly agrees with its own
graph; only a difference quotient tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from training.functions import eager
from training.functions.function_spec import FunctionSpec, TensorSpec, in_float64, widened
from training.functions.publication import Publication
from training.functions.refusal import WRONG_DERIVATIVE, Refusal, from_tracing
from training.publish.export import innermost

STEP = 6e-6  # ∛ε of float64, of a number's size: truncation and rounding are about equal
TOLERANCE = 1e-5  # of the largest number; autograd's own error is far below
KINK = 1e-2  # one-sided quotients that differ by more are a kink's, where nothing can be compared
ROWS = 8
FIRST, SECOND = ("gradient", "jacobian", "vjp", "jvp", "loss_gradient"), ("hvp", "hessian")
Tensors = Sequence[Tensor]


def check(publication: Publication, spec: FunctionSpec) -> dict[str, float]:
    """Largest relative difference of first and second derivatives from central differences.

    In float64, whatever the function is published in; empty if it can't be computed so, or if
    nothing is asked. Raises Refusal where autograd does not give the derivative.
    """
    asked = set(publication.derivatives) | ({"loss_gradient"} if publication.loss else set())
    function = in_float64(publication) if spec.wrt and spec.of else None
    if function is None or not asked:
        return {}
    double = replace(
        spec,
        function=function,
        inputs=tuple(_double(tensor_spec) for tensor_spec in spec.inputs),
        outputs=tuple(_double(tensor_spec) for tensor_spec in spec.outputs),
    )
    inputs = [
        widened(tensor[:ROWS] if name in publication.examples else tensor)
        for name, tensor in publication.inputs.items()
    ]
    generator = torch.Generator().manual_seed(1)
    found = {}
    for order, names, compared in (("first", FIRST, _first), ("second", SECOND, _second)):
        name = next((each for each in names if each in asked), None)
        if name is None:
            continue
        try:
            found[order] = compared(name, double, inputs, generator)
        except RuntimeError as error:
            raise from_tracing(name, error, f"PyTorch itself fails: {innermost(error)}") from error
    return found


def _double(tensor_spec: TensorSpec) -> TensorSpec:
    return replace(tensor_spec, dtype=torch.float64) if tensor_spec.differentiable else tensor_spec


def _first(name: str, spec: FunctionSpec, inputs: Tensors, generator: torch.Generator) -> float:
    """jvp against the quotient of the values along a random direction."""
    direction = _direction(_sizes(spec, inputs), inputs, generator)

    def values(moved: Tensors) -> Tensors:
        outputs = eager.value(spec, moved)
        return [outputs[place] for place in spec.of]

    axis = 1 if spec.batched else 0
    tangents = _with_direction(spec, direction)
    exact = [each.squeeze(axis) for each in eager.jvp(spec, inputs, tangents)]
    names = [spec.outputs[place].name for place in spec.of]
    return _compare(name, names, exact, values, inputs, direction)


def _second(name: str, spec: FunctionSpec, inputs: Tensors, generator: torch.Generator) -> float:
    """hvp against the quotient of the slopes along a random direction.

    Both times the size of the input: numbers in different units are then alike.
    """
    sizes = _sizes(spec, inputs)
    direction = _direction(sizes, inputs, generator)
    outputs = eager.value(spec, inputs)
    axis = 1 if spec.batched else 0
    weights = [
        torch.randn(outputs[place].shape, generator=generator, dtype=torch.float64).unsqueeze(axis)
        for place in spec.of
    ]

    def slopes(moved: Tensors) -> Tensors:
        return scaled(eager.vjp(spec, moved, weights))

    def scaled(results: Tensors) -> Tensors:
        squeezed = _squeezed(spec, results)
        return [each * size for each, size in zip(squeezed, sizes.values(), strict=True)]

    tangents = _with_direction(spec, direction)
    exact = scaled(eager.hvp(spec, inputs, tangents, weights))
    names = [spec.inputs[place].name for place in spec.wrt]
    return _compare(name, names, exact, slopes, inputs, direction)


def _sizes(spec: FunctionSpec, inputs: Tensors) -> dict[int, Tensor]:
    """Of each number of a row, how large it is among the examples: a pressure and a strain may be
    side by side.
    """
    found = {}
    for place in spec.wrt:
        size = inputs[place].abs()
        size = size.amax(0) if spec.inputs[place].batched else size
        found[place] = torch.where(size == 0, 1.0, size)
    return found


def _direction(
    sizes: dict[int, Tensor], inputs: Tensors, generator: torch.Generator
) -> dict[int, Tensor]:
    return {
        place: size
        * (torch.rand(inputs[place].shape, generator=generator, dtype=torch.float64) * 2 - 1)
        for place, size in sizes.items()
    }


def _with_direction(spec: FunctionSpec, direction: dict[int, Tensor]) -> list[Tensor]:
    """As one tangent a row: [n, 1, …], or [1, …] without a batch."""
    return [
        tangent.unsqueeze(1 if spec.inputs[place].batched else 0)
        for place, tangent in direction.items()
    ]


def _squeezed(spec: FunctionSpec, results: Tensors) -> list[Tensor]:
    return [
        result.squeeze(1 if spec.inputs[place].batched else 0)
        for place, result in zip(spec.wrt, results, strict=True)
    ]


def _compare(
    function: str,
    names: Sequence[str],
    exact: Tensors,
    compute: Callable[[Tensors], Tensors],
    inputs: Tensors,
    direction: dict[int, Tensor],
) -> float:
    def at(shift: float) -> Tensors:
        moved = list(inputs)
        for place, tangent in direction.items():
            moved[place] = inputs[place] + shift * tangent
        return compute(moved)

    here, ahead, behind = at(0.0), at(STEP), at(-STEP)
    worst = 0.0
    for name, derivative, now, after, before in zip(names, exact, here, ahead, behind, strict=True):
        forward, backward = (after - now) / STEP, (now - before) / STEP
        scale = max(float(derivative.abs().max()), float(forward.abs().max()))
        noise = 1e-15 * float(now.abs().max()) / STEP
        smooth = (forward - backward).abs() <= KINK * scale + noise
        difference = ((forward + backward) / 2 - derivative).abs()[smooth]
        if difference.numel() < derivative.numel() / 2 or scale == 0:
            continue  # at kinks, or constant
        largest = float(difference.max())
        if not largest <= TOLERANCE * scale + 10 * noise:
            raise Refusal(
                function,
                WRONG_DERIVATIVE,
                f"what autograd gives for {name} differs from central differences by "
                f"{largest / scale:.2g} of its size; a detach(), torch.no_grad(), a "
                "straight-through estimator, a backward() of one's own, or torch.autograd.grad "
                "without create_graph=True?",
            )
        worst = max(worst, largest / scale)
    return worst
