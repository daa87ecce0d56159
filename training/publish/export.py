"""Functions to ONNX graphs.

``record`` writes down the ATen operators that a function executes, the backward pass of any
``grad`` inside included; ``torch.onnx.export`` then turns the recording into ONNX.
(``torch.export`` alone can't: it fails on a module that calls ``grad``.)
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.manifest import Agreement, Function, Graph
from contract.manifest import Tensor as TensorInfo
from training.errors import JobError
from training.publish.agreement import Tolerances, measure_agreement
from training.publish.record import record, traceable

OPSET = 20  # the first with Gelu
BATCH = "n"

DTYPES: dict[int, Any] = {
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
}


def export(
    function: Callable[..., Any],
    example_inputs: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    """Write ``function`` to ``path`` as one ONNX file, weights inside.

    ``function`` maps tensors to one tensor or a tuple of them. The first dimension of every input
    is the batch, ``n``, of any size at run time; all other sizes are those of ``example_inputs``.
    Networks inside must be ``frozen``.

    Raises JobError if the function can't be traced or an operator can't be exported.
    """
    try:
        recorded = record(function, example_inputs, [True] * len(example_inputs))
        model = to_onnx(
            recorded,
            [GraphInput(example.dtype, (BATCH, *example.shape[1:])) for example in example_inputs],
            input_names,
            output_names,
        )
    except Exception as error:  # recording runs the function: it may raise anything
        raise JobError(
            f"{path.name}: the function could not be exported: {innermost(error)}"
        ) from error
    onnx.save(model, path)


@dataclass(frozen=True)
class GraphInput:
    """Type and sizes of a tensor; a size with a name is chosen at run time."""

    dtype: torch.dtype
    shape: tuple[int | str, ...]


class _PositionalInputs(nn.Module):
    """Wraps a module to take any number of positional tensors: one signature for the exporter."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        """The outputs of the module."""
        return self.module(*inputs)


def to_onnx(
    module: nn.Module,
    inputs: Sequence[GraphInput],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    """``module``, made of recordings and plain tensor operators, as a checked ONNX model.

    Raises what the exporter raises, of any kind.
    """
    names = sorted({size for each in inputs for size in each.shape if isinstance(size, str)})
    sizes = {name: 5 + 2 * place for place, name in enumerate(names)}  # any will do
    examples = tuple(
        torch.zeros(
            [sizes[size] if isinstance(size, str) else size for size in each.shape],
            dtype=each.dtype,
        )
        for each in inputs
    )
    dynamic = tuple(
        {axis: size for axis, size in enumerate(each.shape) if isinstance(size, str)} or None
        for each in inputs
    )
    with _quiet(), torch.no_grad(), traceable():
        program = torch.onnx.export(
            _PositionalInputs(module).eval(),
            examples,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=(dynamic,) if any(dynamic) else None,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing")
    model = program.model_proto
    forget_origin(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"the exporter wrote a graph that isn't valid ONNX: {first}") from None
    return model


def signature(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of the graph in ``path``, as the manifest describes them."""
    graph = onnx.load(path, load_external_data=False).graph
    return _tensors(graph.input), _tensors(graph.output)


def entry(path: Path, agreement: Agreement) -> Function:
    """What the manifest says of the graph in ``path``."""
    inputs, outputs = signature(path)
    double = any(tensor.dtype == "float64" for tensor in (*inputs, *outputs))
    graph = Graph(file=path.name, precision="fp64" if double else "fp32", agreement=agreement)
    return Function(inputs=inputs, outputs=outputs, graph=graph)


def export_function(
    function: Callable[..., Any],
    samples: Mapping[str, Tensor],
    output_names: Sequence[str],
    folder: Path,
    name: str,
    *,
    tolerances: Tolerances,
) -> tuple[Function, dict[str, NDArray[Any]]]:
    """Export ``function`` to ``folder/<name>.onnx`` and check it on ``samples``.

    ``samples`` are the inputs by name, each with the batch first. The reference is what PyTorch
    gives for them, eagerly. Returns the manifest's entry, and the arrays for ``samples.npz`` with
    keys ``<name>.<tensor>``.

    Raises JobError if it can't be exported or doesn't agree.
    """
    path = folder / f"{name}.onnx"
    reference = function(*samples.values())
    outputs = (reference,) if isinstance(reference, Tensor) else tuple(reference)
    if len(outputs) != len(output_names):
        raise ValueError(f"{name} gives {len(outputs)} outputs, not {len(output_names)}")
    export(function, list(samples.values()), list(samples), output_names, path)
    given = {key: value.numpy() for key, value in samples.items()}
    expected = {
        key: value.detach().numpy() for key, value in zip(output_names, outputs, strict=True)
    }
    agreement = measure_agreement(path, given, expected, tolerances)
    return entry(path, agreement), {
        f"{name}.{key}": value for key, value in (given | expected).items()
    }


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove stack traces and the like: they hold paths of the machine that exported."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for entries in (
        model.graph.node,
        model.graph.input,
        model.graph.output,
        model.graph.value_info,
        model.graph.initializer,
    ):
        for entry in entries:
            entry.doc_string = ""
            del entry.metadata_props[:]


def _tensors(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=value.name,
            dtype=DTYPES[value.type.tensor_type.elem_type],
            shape=tuple(
                size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    )


def innermost(error: BaseException) -> str:
    """First line of the innermost cause: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings, advice and tracebacks: no user of a job can act on them."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
