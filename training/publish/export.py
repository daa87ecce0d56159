"""Functions to ONNX graphs.

``make_fx`` records the ATen operators that a function executes, the backward pass of any ``grad``
inside included; ``torch.onnx.export`` then turns the recording into ONNX. (``torch.export`` alone
can't: it fails on a module that calls ``grad``.)
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from contract.manifest import Function, Graph, Precision
from contract.manifest import Tensor as TensorInfo
from training.errors import JobError
from training.publish.agreement import Tolerances, measure_agreement
from training.publish.derivatives import DECOMPOSITIONS

OPSET = 20  # the first with Gelu
BATCH = "n"

_DTYPES: dict[int, Any] = {
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
    # Sizes 0 and 1 are never symbols, so that a single example is traced as two alike.
    examples = [
        tensor[torch.arange(max(2, len(tensor))) % len(tensor)] for tensor in example_inputs
    ]
    try:
        recorded = make_fx(
            function,
            decomposition_table=DECOMPOSITIONS,
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(*_symbolic(examples))
        # What only the backward pass of a weight would have used is still recorded.
        recorded.graph.eliminate_dead_code()
        recorded.recompile()
        recorded.eval()
        with _quiet():
            program = torch.onnx.export(
                recorded,
                tuple(examples),
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=tuple({0: BATCH} for _ in examples),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise JobError(f"{path.name}: the function could not be exported: {_why(error)}") from error
    if program is None:
        raise JobError(f"{path.name}: the ONNX exporter returned nothing")
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def signature(path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of the graph in ``path``, as the manifest describes them."""
    graph = onnx.load(path, load_external_data=False).graph
    return _tensors(graph.input), _tensors(graph.output)


def export_function(
    function: Callable[..., Any],
    samples: Mapping[str, Tensor],
    output_names: Sequence[str],
    folder: Path,
    name: str,
    *,
    tolerances: Tolerances,
    precision: Precision,
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
    input_info, output_info = signature(path)
    entry = Function(
        inputs=input_info,
        outputs=output_info,
        graph=Graph(file=path.name, precision=precision, agreement=agreement),
    )
    return entry, {f"{name}.{key}": value for key, value in (given | expected).items()}


def _symbolic(example_inputs: Sequence[Tensor]) -> list[Tensor]:
    """Stand-ins for the examples, without data, whose first size is the symbol n.

    Left to itself, make_fx would make every size a symbol, and the same symbol for equal sizes: a
    batch of 3 RGB images would tie n to the number of channels. Here all else is a plain number.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return [
        mode.from_tensor(
            example,
            source=ConstantSource(f"input{index}"),
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DUCK] + [DimDynamic.STATIC] * (example.dim() - 1)
            ),
        )
        for index, example in enumerate(example_inputs)
    ]


def _forget_origin(model: onnx.ModelProto) -> None:
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
            dtype=_DTYPES[value.type.tensor_type.elem_type],
            shape=tuple(
                size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    )


def _why(error: BaseException) -> str:
    """First line of the innermost cause: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's warnings and advice, which no user of a job can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
