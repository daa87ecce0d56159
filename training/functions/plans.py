"""Each function of an artifact: its tensors' names and types, its graph, and its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import JobError
from training.functions import eager, rowwise
from training.functions.derivative_modules import Directions, Hessian, Jacobian, WithUnitCotangent
from training.functions.function_spec import FunctionSpec, TensorSpec
from training.functions.refusal import NO_DERIVATIVE, TOO_MANY, Refusal
from training.publish.export import BATCH, GraphInput
from training.publish.record import functional, record

DIRECTIONS = "k"  # the name of the second size of tangents and cotangents
ELEMENTS = 10**6  # numbers a row of a Jacobian or Hessian; the service gives no more


@dataclass(frozen=True)
class Plan:
    """A function to export: named inputs and outputs, how to build it, what PyTorch gives.

    ``vectors`` are the inputs after those of the function itself. ``build`` makes the module to
    export; ``reference`` maps inputs and vectors to the outputs, eagerly.
    """

    name: str
    inputs: Mapping[str, GraphInput]
    vectors: Mapping[str, GraphInput]
    outputs: tuple[str, ...]
    build: Callable[[], nn.Module]
    reference: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
    enough: int = 64  # examples to compare it on


def plan(name: str, spec: FunctionSpec) -> Plan:
    """The plan of one function. Raises Refusal if the function has no such derivative."""
    if name != "value":
        _require_differentiable(name, spec)
    made: Plan = _PLANS[name](spec)
    return made


def graph_input(tensor_spec: TensorSpec) -> GraphInput:
    """The tensor as an input of a graph."""
    return GraphInput(
        tensor_spec.dtype,
        ((BATCH, *tensor_spec.shape) if tensor_spec.batched else tensor_spec.shape),
    )


def _in_directions(tensor_spec: TensorSpec) -> GraphInput:
    lead = (BATCH, DIRECTIONS) if tensor_spec.batched else (DIRECTIONS,)
    return GraphInput(tensor_spec.dtype, (*lead, *tensor_spec.shape))


def _inputs(spec: FunctionSpec) -> dict[str, GraphInput]:
    return {tensor_spec.name: graph_input(tensor_spec) for tensor_spec in spec.inputs}


def _tangents(spec: FunctionSpec) -> dict[str, GraphInput]:
    tensor_specs = [spec.inputs[place] for place in spec.wrt]
    return {
        f"tangent_{tensor_spec.name}": _in_directions(tensor_spec) for tensor_spec in tensor_specs
    }


def _cotangents(spec: FunctionSpec) -> dict[str, GraphInput]:
    tensor_specs = [spec.outputs[place] for place in spec.of]
    return {
        f"cotangent_{tensor_spec.name}": _in_directions(tensor_spec) for tensor_spec in tensor_specs
    }


def _require_differentiable(name: str, spec: FunctionSpec) -> None:
    if not spec.wrt:
        raise Refusal(name, NO_DERIVATIVE, "no input is float64 or float32")
    if not spec.of:
        raise Refusal(name, NO_DERIVATIVE, "no output is float64 or float32")


def _value(spec: FunctionSpec) -> Plan:
    batched = [tensor_spec.batched for tensor_spec in spec.inputs]

    def build() -> nn.Module:
        function = functional(spec.function)
        return record(function, _row_examples(spec.inputs), batched)

    return Plan(
        "value",
        _inputs(spec),
        {},
        tuple(tensor_spec.name for tensor_spec in spec.outputs),
        build,
        lambda inputs, _: eager.value(spec, inputs),
    )


def _row_examples(tensor_specs: Sequence[TensorSpec]) -> list[Tensor]:
    return [
        torch.zeros(2 if tensor_spec.batched else 1, *tensor_spec.shape, dtype=tensor_spec.dtype)
        if tensor_spec.batched
        else torch.zeros(tensor_spec.shape, dtype=tensor_spec.dtype)
        for tensor_spec in tensor_specs
    ]


def _recorded_rows(
    rows: rowwise.Rows, spec: FunctionSpec, vectors: Sequence[TensorSpec]
) -> nn.Module:
    """A function over rows, all of whose arguments have them, recorded."""
    tensor_specs = [*spec.inputs, *vectors]
    examples = [
        torch.zeros(2, *tensor_spec.shape, dtype=tensor_spec.dtype) for tensor_spec in tensor_specs
    ]
    return record(rows, examples, [True] * len(tensor_specs))


def _ports(spec: FunctionSpec) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The inputs that can be varied, the outputs that have derivatives."""
    return (
        [spec.inputs[place] for place in spec.wrt],
        [spec.outputs[place] for place in spec.of],
    )


def _vjp(spec: FunctionSpec) -> Plan:
    varied, wanted = _ports(spec)
    return _along(
        "vjp", spec, rowwise.vjp_rows(spec, spec.of), wanted, varied,
        _cotangents(spec), eager.vjp,
    )  # fmt: skip


def _jvp(spec: FunctionSpec) -> Plan:
    varied, wanted = _ports(spec)
    return _along(
        "jvp", spec, rowwise.jvp_rows(spec), varied, wanted, _tangents(spec),
        eager.jvp,
    )  # fmt: skip


def _along(
    name: str,
    spec: FunctionSpec,
    rows: rowwise.Rows,
    given: Sequence[TensorSpec],
    results: Sequence[TensorSpec],
    vectors: Mapping[str, GraphInput],
    reference: Callable[[FunctionSpec, Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
) -> Plan:
    """``rows`` for k vectors a row, each like ``given``; one of ``results`` for each vector."""
    return Plan(
        name,
        _inputs(spec),
        vectors,
        tuple(f"{name}_{tensor_spec.name}" for tensor_spec in results),
        lambda: Directions(_recorded_rows(rows, spec, given), spec, given, results),
        lambda inputs, directions: reference(spec, inputs, directions),
    )


def _hvp(spec: FunctionSpec) -> Plan:
    varied, wanted = _ports(spec)
    scalar = spec.one_number
    given = {} if scalar else _cotangents(spec)

    def build() -> nn.Module:
        rows = rowwise.hvp_rows(spec, spec.of)
        recorded = _recorded_rows(rows, spec, [*varied, *wanted])
        if scalar:
            unit = WithUnitCotangent(recorded, spec)
            return Directions(unit, spec, varied, varied)
        return Directions(recorded, spec, [*varied, *wanted], varied)

    def reference(inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        return eager.hvp(spec, inputs, vectors[: len(varied)], vectors[len(varied) :])

    return Plan(
        "hvp",
        _inputs(spec),
        {**_tangents(spec), **given},
        tuple(f"hvp_{tensor_spec.name}" for tensor_spec in varied),
        build,
        reference,
    )


def _pullbacks(spec: FunctionSpec, places: Sequence[int]) -> dict[int, nn.Module]:
    return {
        place: _recorded_rows(rowwise.vjp_rows(spec, (place,)), spec, [spec.outputs[place]])
        for place in places
    }


def _matrix(spec: FunctionSpec, name: str, places: Sequence[int]) -> Plan:
    """``gradient`` or ``jacobian``: every pair of the outputs ``places`` and the inputs."""
    varied, _ = _ports(spec)
    outputs = [spec.outputs[place] for place in places]
    for output in outputs:
        _require_room(name, output, [(tensor_spec,) for tensor_spec in varied])
    bare = name == "gradient"

    def reference(inputs: Sequence[Tensor], _: Sequence[Tensor]) -> Sequence[Tensor]:
        found = eager.jacobian(spec, inputs, places)
        if not bare:
            return found
        lead = 1 if spec.batched else 0
        sizes = [tensor_spec.shape for _ in outputs for tensor_spec in varied]
        return [
            each.reshape(*each.shape[:lead], *size) for each, size in zip(found, sizes, strict=True)
        ]

    names = tuple(
        f"{name}_{output.name}_{tensor_spec.name}" for output in outputs for tensor_spec in varied
    )
    return Plan(
        name,
        _inputs(spec),
        {},
        names,
        lambda: Jacobian(_pullbacks(spec, places), spec, bare=bare),
        reference,
    )


def _gradient(spec: FunctionSpec) -> Plan:
    if not spec.scalars:
        shapes = ", ".join(
            f"{tensor_spec.name} {list(tensor_spec.shape)}" for tensor_spec in spec.outputs
        )
        raise Refusal(
            "gradient",
            NO_DERIVATIVE,
            f"no output is one number a row ({shapes}); ask for jacobian instead",
        )
    return _matrix(spec, "gradient", spec.scalars)


def _jacobian(spec: FunctionSpec) -> Plan:
    return _matrix(spec, "jacobian", spec.of)


def _hessian(spec: FunctionSpec) -> Plan:
    varied, wanted = _ports(spec)
    for output in wanted:
        _require_room("hessian", output, [(a, b) for a in varied for b in varied])

    def build() -> nn.Module:
        recorded = {
            place: _recorded_rows(
                rowwise.hvp_rows(spec, (place,)),
                spec,
                [*varied, spec.outputs[place]],
            )
            for place in spec.of
        }
        return Hessian(recorded, spec)

    names = tuple(
        f"hessian_{output.name}_{a.name}_{b.name}"
        for output in wanted
        for a in varied
        for b in varied
    )
    return Plan(
        "hessian",
        _inputs(spec),
        {},
        names,
        build,
        lambda inputs, _: eager.hessian(spec, inputs),
    )


def _require_room(name: str, output: TensorSpec, inputs: Sequence[Sequence[TensorSpec]]) -> None:
    for tensor_specs in inputs:
        numbers = output.size
        for tensor_spec in tensor_specs:
            numbers *= tensor_spec.size
        if numbers > ELEMENTS:
            by = " and ".join(tensor_spec.name for tensor_spec in tensor_specs)
            raise Refusal(
                name,
                TOO_MANY,
                f"that of {output.name} by {by} has {numbers:,} numbers a row; the service gives "
                f"{ELEMENTS:,} at most: ask for vjp, jvp or hvp instead",
            )


_PLANS: dict[str, Any] = {
    "value": _value,
    "gradient": _gradient,
    "jacobian": _jacobian,
    "vjp": _vjp,
    "jvp": _jvp,
    "hvp": _hvp,
    "hessian": _hessian,
}


def require_distinct(plans: Sequence[Plan]) -> None:
    """Raises JobError if two tensors of the artifact have one name.

    Inputs are shared by the functions; an output belongs to one function.
    """
    inputs = {name for each in plans for name in (*each.inputs, *each.vectors)}
    seen: dict[str, str] = {}
    for each in plans:
        for name in each.outputs:
            if name in inputs or name in seen:
                other = f"an output of {seen[name]}" if name in seen else "an input"
                raise JobError(
                    f"the name {name} would stand for {other} and an output of {each.name}; "
                    "rename an input or output of the function"
                )
            seen[name] = each.name
