"""Each function of an artifact: its tensors' names and types, its graph, and its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import JobError
from training.functions import eager, rowwise
from training.functions.arranged import Directions, Hessian, Jacobian, WithUnitCotangent
from training.functions.described import Described, Port
from training.functions.refusal import NO_DERIVATIVE, TOO_MANY, Refusal
from training.publish.export import BATCH, Shaped
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
    inputs: Mapping[str, Shaped]
    vectors: Mapping[str, Shaped]
    outputs: tuple[str, ...]
    build: Callable[[], nn.Module]
    reference: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
    enough: int = 64  # examples to compare it on


def plan(name: str, described: Described) -> Plan:
    """The plan of one function. Raises Refusal if the function has no such derivative."""
    if name != "value":
        _require_differentiable(name, described)
    made: Plan = _PLANS[name](described)
    return made


def shaped(port: Port) -> Shaped:
    """The port as a tensor of a graph."""
    return Shaped(port.dtype, ((BATCH, *port.shape) if port.batched else port.shape))


def _in_directions(port: Port) -> Shaped:
    lead = (BATCH, DIRECTIONS) if port.batched else (DIRECTIONS,)
    return Shaped(port.dtype, (*lead, *port.shape))


def _inputs(described: Described) -> dict[str, Shaped]:
    return {port.name: shaped(port) for port in described.inputs}


def _tangents(described: Described) -> dict[str, Shaped]:
    ports = [described.inputs[place] for place in described.wrt]
    return {f"tangent_{port.name}": _in_directions(port) for port in ports}


def _cotangents(described: Described) -> dict[str, Shaped]:
    ports = [described.outputs[place] for place in described.of]
    return {f"cotangent_{port.name}": _in_directions(port) for port in ports}


def _require_differentiable(name: str, described: Described) -> None:
    if not described.wrt:
        raise Refusal(name, NO_DERIVATIVE, "no input is float64 or float32")
    if not described.of:
        raise Refusal(name, NO_DERIVATIVE, "no output is float64 or float32")


def _value(described: Described) -> Plan:
    batched = [port.batched for port in described.inputs]

    def build() -> nn.Module:
        function = functional(described.function)
        return record(function, _row_examples(described.inputs), batched)

    return Plan(
        "value",
        _inputs(described),
        {},
        tuple(port.name for port in described.outputs),
        build,
        lambda inputs, _: eager.value(described, inputs),
    )


def _row_examples(ports: Sequence[Port]) -> list[Tensor]:
    return [
        torch.zeros(2 if port.batched else 1, *port.shape, dtype=port.dtype)
        if port.batched
        else torch.zeros(port.shape, dtype=port.dtype)
        for port in ports
    ]


def _recorded_rows(rows: rowwise.Rows, described: Described, vectors: Sequence[Port]) -> nn.Module:
    """A function over rows, all of whose arguments have them, recorded."""
    ports = [*described.inputs, *vectors]
    examples = [torch.zeros(2, *port.shape, dtype=port.dtype) for port in ports]
    return record(rows, examples, [True] * len(ports))


def _ports(described: Described) -> tuple[list[Port], list[Port]]:
    """The inputs that can be varied, the outputs that have derivatives."""
    return (
        [described.inputs[place] for place in described.wrt],
        [described.outputs[place] for place in described.of],
    )


def _vjp(described: Described) -> Plan:
    varied, wanted = _ports(described)
    return _along(
        "vjp", described, rowwise.vjp_rows(described, described.of), wanted, varied,
        _cotangents(described), eager.vjp,
    )  # fmt: skip


def _jvp(described: Described) -> Plan:
    varied, wanted = _ports(described)
    return _along(
        "jvp", described, rowwise.jvp_rows(described), varied, wanted, _tangents(described),
        eager.jvp,
    )  # fmt: skip


def _along(
    name: str,
    described: Described,
    rows: rowwise.Rows,
    given: Sequence[Port],
    results: Sequence[Port],
    vectors: Mapping[str, Shaped],
    reference: Callable[[Described, Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
) -> Plan:
    """``rows`` for k vectors a row, each like ``given``; one of ``results`` for each vector."""
    return Plan(
        name,
        _inputs(described),
        vectors,
        tuple(f"{name}_{port.name}" for port in results),
        lambda: Directions(_recorded_rows(rows, described, given), described, given, results),
        lambda inputs, directions: reference(described, inputs, directions),
    )


def _hvp(described: Described) -> Plan:
    varied, wanted = _ports(described)
    scalar = described.one_number
    given = {} if scalar else _cotangents(described)

    def build() -> nn.Module:
        rows = rowwise.hvp_rows(described, described.of)
        recorded = _recorded_rows(rows, described, [*varied, *wanted])
        if scalar:
            unit = WithUnitCotangent(recorded, described)
            return Directions(unit, described, varied, varied)
        return Directions(recorded, described, [*varied, *wanted], varied)

    def reference(inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        return eager.hvp(described, inputs, vectors[: len(varied)], vectors[len(varied) :])

    return Plan(
        "hvp",
        _inputs(described),
        {**_tangents(described), **given},
        tuple(f"hvp_{port.name}" for port in varied),
        build,
        reference,
    )


def _pullbacks(described: Described, places: Sequence[int]) -> dict[int, nn.Module]:
    return {
        place: _recorded_rows(
            rowwise.vjp_rows(described, (place,)), described, [described.outputs[place]]
        )
        for place in places
    }


def _matrix(described: Described, name: str, places: Sequence[int]) -> Plan:
    """``gradient`` or ``jacobian``: every pair of the outputs ``places`` and the inputs."""
    varied, _ = _ports(described)
    outputs = [described.outputs[place] for place in places]
    for output in outputs:
        _require_room(name, output, [(port,) for port in varied])
    bare = name == "gradient"

    def reference(inputs: Sequence[Tensor], _: Sequence[Tensor]) -> Sequence[Tensor]:
        found = eager.jacobian(described, inputs, places)
        if not bare:
            return found
        lead = 1 if described.batched else 0
        sizes = [port.shape for _ in outputs for port in varied]
        return [
            each.reshape(*each.shape[:lead], *size) for each, size in zip(found, sizes, strict=True)
        ]

    names = tuple(f"{name}_{output.name}_{port.name}" for output in outputs for port in varied)
    return Plan(
        name,
        _inputs(described),
        {},
        names,
        lambda: Jacobian(_pullbacks(described, places), described, bare=bare),
        reference,
    )


def _gradient(described: Described) -> Plan:
    if not described.scalars:
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in described.outputs)
        raise Refusal(
            "gradient",
            NO_DERIVATIVE,
            f"no output is one number a row ({shapes}); ask for jacobian instead",
        )
    return _matrix(described, "gradient", described.scalars)


def _jacobian(described: Described) -> Plan:
    return _matrix(described, "jacobian", described.of)


def _hessian(described: Described) -> Plan:
    varied, wanted = _ports(described)
    for output in wanted:
        _require_room("hessian", output, [(a, b) for a in varied for b in varied])

    def build() -> nn.Module:
        recorded = {
            place: _recorded_rows(
                rowwise.hvp_rows(described, (place,)),
                described,
                [*varied, described.outputs[place]],
            )
            for place in described.of
        }
        return Hessian(recorded, described)

    names = tuple(
        f"hessian_{output.name}_{a.name}_{b.name}"
        for output in wanted
        for a in varied
        for b in varied
    )
    return Plan(
        "hessian",
        _inputs(described),
        {},
        names,
        build,
        lambda inputs, _: eager.hessian(described, inputs),
    )


def _require_room(name: str, output: Port, inputs: Sequence[Sequence[Port]]) -> None:
    for ports in inputs:
        numbers = output.size
        for port in ports:
            numbers *= port.size
        if numbers > ELEMENTS:
            by = " and ".join(port.name for port in ports)
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
