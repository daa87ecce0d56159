"""A ready ONNX file as an artifact: values only, checked against ONNX's reference evaluator."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.manifest import Agreement, FunctionManifest
from contract.remote import Root, open_draft, root_of
from contract.store import Artifact
from training.errors import JobError
from training.functions import function_report
from training.publish import report
from training.publish.agreement import GraphRunner
from training.publish.export import BATCH, DTYPES, entry, forget_origin

ROWS = 8
BATCHES = (1, 2, 7)
RELATIVE = {"float64": 1e-9, "float32": 1e-4}
LIMIT = 2**31 - 1  # bytes of a protobuf
FILE = "value.onnx"
LARGEST = 10**7  # numbers of an input, a row of it where the batch is open
KNOWN = ", ".join(DTYPES.values())

Arrays = Mapping[str, NDArray[Any]]


def import_onnx(
    file: Path,
    name: str,
    artifacts: str | Path | Root = "artifacts",
    *,
    samples: Path | None = None,
    say: Callable[[str], None] = print,
) -> Artifact:
    """Publish ``file`` as the next version of ``name``, with the function ``value`` alone.

    The first size of the inputs is the batch where the file leaves it open; every other size must
    be fixed. Raises JobError, and nothing is published then.
    """
    model = _read(file)
    _settle_batch(model, file)
    given = _samples(model, samples, file)
    with open_draft(root_of(artifacts), name) as draft:
        path = draft.folder / FILE
        expected = _reference(model, given, file)
        _declare_outputs(model, expected, file)
        onnx.save(model, path)
        agreement = _check(model, path, given, expected)
        manifest = FunctionManifest(
            **draft.header,
            functions={"value": entry(path, agreement)},
            description=f"Imported from {file.name}",
            ranges={key: (float(each.min()), float(each.max())) for key, each in given.items()},
        )
        arrays = {f"value.{key}": each for key, each in {**given, **expected}.items()}
        report.write_samples(draft.folder, manifest.functions, arrays)
        report.write_report(draft.folder, function_report.imported(manifest, draft.folder))
        artifact = draft.publish(manifest)
    say(f"value: agrees with ONNX's reference to {agreement.maximum_absolute_error:.1e}")
    say(f"published {draft.published}")
    return artifact


def _read(file: Path) -> onnx.ModelProto:
    try:
        if file.stat().st_size > LIMIT:
            raise JobError(f"{file} has over 2 GiB, more than one ONNX file can hold")
        model = onnx.load(file)  # and the external data beside it, which goes into the artifact
        _require_tensors(model, file)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise JobError(f"{file}: {error.filename or 'a file of its data'} isn't there") from None
    except JobError:
        raise
    except Exception as error:  # protobuf's and onnx's errors share no base class
        first = str(error).strip().partition("\n")[0]
        raise JobError(f"{file} is not a valid ONNX model: {first}") from None
    if model.ByteSize() > LIMIT:
        raise JobError(f"{file} has over 2 GiB with its weights, more than one ONNX file can hold")
    forget_origin(model)
    return model


def _require_tensors(model: onnx.ModelProto, file: Path) -> None:
    """Inputs and outputs are tensors, and inputs tell their sizes. Raises JobError."""
    if not _inputs(model):
        raise JobError(f"{file} has no inputs: there is nothing to evaluate")
    for what, values in (("input", _inputs(model)), ("output", model.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                raise JobError(
                    f"{file}: {what} {value.name} is no tensor ({kind}); of a classifier of "
                    "scikit-learn, convert it with options={'zipmap': False}"
                )
            if what == "input" and not value.type.tensor_type.HasField("shape"):
                raise JobError(f"{file}: input {value.name} has no sizes; fix them when you export")
    for value in model.graph.output:  # the checker wants sizes; _declare_outputs finds them
        value.type.tensor_type.shape.SetInParent()


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Old files list their weights among the inputs."""
    weights = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in weights]


def _open_batch(model: onnx.ModelProto) -> bool:
    return any(_shape(each)[:1] == [BATCH] for each in _inputs(model))


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_param or (size.dim_value if size.dim_value > 0 else "?") for size in sizes]


def _settle_batch(model: onnx.ModelProto, file: Path) -> None:
    for value in _inputs(model):
        kind = value.type.tensor_type.elem_type
        if kind not in DTYPES:
            raise JobError(
                f"{file}: input {value.name} is {onnx.TensorProto.DataType.Name(kind).lower()}; "
                f"the service knows {KNOWN}"
            )
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_value > 0:  # some converters write an open size as 0 or -1
                continue
            if axis:
                raise JobError(
                    f"{file}: size {axis} of input {value.name} is open ({size.dim_param or '?'}); "
                    "only the first, the batch, may be: fix it when you export"
                )
            size.dim_param = BATCH
        numbers = prod(size for size in _shape(value) if isinstance(size, int))
        if numbers > LARGEST:
            raise JobError(
                f"{file}: input {value.name} has {numbers:,} numbers; {LARGEST:,} are the most"
            )


def _samples(model: onnx.ModelProto, file: Path | None, source: Path) -> dict[str, NDArray[Any]]:
    if file is None:
        return _random(model)
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise JobError(f"{file} is not a readable .npz file ({error})") from None
    wanted = {value.name: value for value in _inputs(model)}
    if arrays.keys() != wanted.keys():
        raise JobError(
            f"{file} has {', '.join(sorted(arrays))}; {source.name} takes {', '.join(wanted)}"
        )
    for name, array in arrays.items():
        shape = _shape(wanted[name])
        dtype = DTYPES[wanted[name].type.tensor_type.elem_type]
        fits = array.ndim == len(shape) and all(
            size in (BATCH, given) for size, given in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype or array.size == 0:
            raise JobError(
                f"{file}: {name} is {array.dtype}{list(array.shape)}; it should be {dtype}{shape}"
            )
    return arrays


def _random(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Standard normal numbers; whole numbers are 0 or 1, which any table of embeddings has."""
    generator = np.random.default_rng(0)
    arrays = {}
    for value in _inputs(model):
        shape = [ROWS if isinstance(size, str) else size for size in _shape(value)]
        dtype = np.dtype(DTYPES[value.type.tensor_type.elem_type])
        arrays[value.name] = (
            generator.normal(size=shape).astype(dtype)
            if dtype.kind == "f"
            else generator.integers(0, 2, shape).astype(dtype)
        )
    return arrays


def _reference(model: onnx.ModelProto, given: Arrays, file: Path) -> dict[str, NDArray[Any]]:
    try:
        found = ReferenceEvaluator(model).run(None, dict(given))
    except Exception as error:  # an operator that it lacks, a shape that doesn't fit
        first = str(error).strip().partition("\n")[0]
        raise JobError(f"{file}: ONNX's reference evaluator can't run it: {first}") from None
    names = [value.name for value in model.graph.output]
    arrays = {name: np.asarray(array) for name, array in zip(names, found, strict=True)}
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES.values():
            raise JobError(
                f"{file}: output {name} is {'text' if array.dtype.kind in 'USO' else array.dtype}; "
                f"the service knows {KNOWN}: leave it out when you export, or give numbers"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise JobError(f"{file}: output {name} isn't finite on the samples; give --samples")
    return arrays


def _declare_outputs(model: onnx.ModelProto, expected: Arrays, file: Path) -> None:
    """Outputs often have no sizes in the file; those that were found are theirs."""
    batched = _open_batch(model)
    for value in model.graph.output:
        array = expected[value.name]
        shape: list[int | str] = list(array.shape)
        if batched and not shape:
            raise JobError(
                f"{file}: output {value.name} is one number for all rows, not one for each"
            )
        if batched:
            shape[0] = BATCH
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))


def _check(model: onnx.ModelProto, path: Path, given: Arrays, expected: Arrays) -> Agreement:
    run = GraphRunner(path)
    worst = _compare(run, given, expected)
    if _open_batch(model):
        batched = {v.name for v in _inputs(model) if _shape(v)[:1] == [BATCH]}
        rows = min(len(given[name]) for name in batched)
        for size in BATCHES:
            chosen = np.arange(size) % rows
            part = {
                name: array[chosen] if name in batched else array for name, array in given.items()
            }
            rest = {name: array[chosen] for name, array in expected.items()}
            worst = max(worst, _compare(run, part, rest))
    kinds: Sequence[str] = [array.dtype.name for array in expected.values()]
    relative = max(RELATIVE.get(kind, 0.0) for kind in kinds)
    scale = max(float(np.abs(array).max(initial=0.0)) for array in expected.values())
    return Agreement(
        maximum_absolute_error=worst,
        absolute_tolerance=relative * max(scale, 1e-300),
        relative_tolerance=relative,
    )


def _compare(run: GraphRunner, given: Arrays, expected: Arrays) -> float:
    worst = 0.0
    try:
        results = run(given)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise JobError(f"ONNX Runtime fails on the samples: {str(error)[:200]}") from None
    for name, reference in expected.items():
        found = results[name]
        if found.shape != reference.shape:
            raise JobError(
                f"output {name} has shape {list(found.shape)} for some rows, not "
                f"{list(reference.shape)}: each row should give a row"
            )
        difference = float(np.abs(found.astype(float) - reference.astype(float)).max(initial=0.0))
        allowed = RELATIVE.get(reference.dtype.name, 0.0) * float(
            np.abs(reference).max(initial=0.0)
        )
        if not difference <= allowed:
            raise JobError(
                f"output {name}: ONNX Runtime differs from ONNX's reference evaluator by "
                f"{difference:.3g}, or rows influence one another; nothing was published"
            )
        worst = max(worst, difference)
    return worst
