"""Inference in terms of named tensors: what any protocol in front of the models needs, and no more.

A model here is a whole artifact: its inputs and outputs are those of all its functions. Asking for
``gradient`` runs the function that gives it. Knows nothing of HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.manifest import ClassifierManifest, Tensor
from contract.store import AnyManifest
from service.runtime.errors import BadTensor
from service.runtime.loader import Model
from service.runtime.queue import Queue
from service.runtime.session import Array, Session

CLASS = "class"  # the input of ``saliency`` that says which class to explain
# Rows that one run takes; where there are more, others get their turn in between.
ROWS = {"curve": 2048, "sigmoid-conv": 256, "classifier": 8}


@dataclass(frozen=True)
class Signature:
    """Every input and output of an artifact, by name, in the order of its functions."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def signature(manifest: AnyManifest) -> Signature:
    """The inputs and outputs of all functions of an artifact."""
    functions = manifest.functions.values()
    return Signature(
        {tensor.name: tensor for function in functions for tensor in function.inputs},
        {tensor.name: tensor for function in functions for tensor in function.outputs},
    )


async def infer(
    model: Model, inputs: Mapping[str, Array], wanted: Sequence[str], queue: Queue
) -> dict[str, Array]:
    """The ``wanted`` outputs; every one that ``inputs`` suffice for, if none is named.

    Raises BadTensor.
    """
    _check(model.manifest, inputs)
    known = signature(model.manifest).outputs
    for name in wanted:
        if name not in known:
            raise BadTensor(f"there is no such output; there are: {', '.join(known)}")
    found: dict[str, Array] = {}
    for name in _chosen(model.manifest, inputs, wanted):
        function = model.manifest.functions[name]
        arrays = [inputs[tensor.name] for tensor in function.inputs]
        rows = ROWS[model.manifest.kind]
        outputs = await _run(model.functions[name].session, arrays, rows, queue)
        found |= dict(zip(_names(function.outputs), outputs, strict=True))
    return {name: found[name] for name in known if name in (wanted or found)}


def _chosen(manifest: AnyManifest, inputs: Mapping[str, Array], wanted: Sequence[str]) -> list[str]:
    """The functions to run: as few as give what is wanted, for one may give another's output too.

    Raises BadTensor.
    """
    gives = {
        name: _names(function.outputs)
        for name, function in manifest.functions.items()
        if inputs.keys() >= set(_names(function.inputs))
    }
    missing = set(wanted) or {output for outputs in gives.values() for output in outputs}
    if not missing:
        raise BadTensor("these inputs suffice for no output")
    chosen: list[str] = []
    while missing:
        gain = {name: len(missing.intersection(outputs)) for name, outputs in gives.items()}
        # Of those that give most, the one that gives least besides.
        best = max(gain, key=lambda name: (gain[name], -len(gives[name])), default=None)
        if best is None or not gain[best]:
            raise _input_missing(manifest, inputs, missing)
        chosen.append(best)
        missing.difference_update(gives[best])
    return chosen


def _input_missing(
    manifest: AnyManifest, inputs: Mapping[str, Array], outputs: set[str]
) -> BadTensor:
    for function in manifest.functions.values():
        if outputs.intersection(gives := _names(function.outputs)):
            lacking = next(name for name in _names(function.inputs) if name not in inputs)
            return BadTensor(f"{', '.join(gives)} needs this input as well", lacking)
    raise AssertionError("every output is some function's")


def _names(tensors: Sequence[Tensor]) -> list[str]:
    return [tensor.name for tensor in tensors]


async def _run(session: Session, arrays: list[Array], rows: int, queue: Queue) -> list[Array]:
    parts = [
        await queue.run(session, *(array[start : start + rows] for array in arrays))
        for start in range(0, len(arrays[0]), rows)
    ]
    if len(parts) == 1:
        return parts[0]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _check(manifest: AnyManifest, inputs: Mapping[str, Array]) -> None:
    """Inputs are known, of the right type and shape, and agree on every size that has a name."""
    known = signature(manifest).inputs
    sizes: dict[str, int] = {}
    for name, array in inputs.items():
        tensor = known.get(name)
        if tensor is None:
            raise BadTensor(f"there is no such input; there are: {', '.join(known)}")
        if array.dtype != np.dtype(tensor.dtype):
            raise BadTensor(f"its type should be {tensor.dtype}", name)
        if array.ndim != len(tensor.shape):
            raise BadTensor(f"it should have {len(tensor.shape)} dimensions", name)
        for size, expected in zip(array.shape, tensor.shape, strict=True):
            if isinstance(expected, str):
                expected = sizes.setdefault(expected, size)  # noqa: PLW2901
            if size != expected or size == 0:
                raise BadTensor(f"its shape should be {list(tensor.shape)}, and none of it 0", name)
        if name == CLASS and isinstance(manifest, ClassifierManifest):
            last = len(manifest.classes) - 1
            if array.min() < 0 or array.max() > last:
                raise BadTensor(f"a class is an index from 0 to {last}", name)
