"""One ONNX graph, ready to run, and its replay against what PyTorch gave."""

import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.agreement import disagreement, too_loose
from contract.graphs import GraphUnreadable, has_external_data
from contract.manifest import Function, Graph, Tensor, shape_text

Array = NDArray[Any]

# A row that takes longer is no work for the event loop.
LONG_SECONDS = 0.005
# A replay that takes less is timed again: what is done first takes longer than it does later.
QUICK_SECONDS = 0.005

# ONNX Runtime looks for external data of a graph in here. There is no such folder.
NO_FOLDER = "/no external data is ever read"
ELEMENTS = {
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


class GraphError(Exception):
    """A graph that cannot serve: unreadable, of another signature, or in disagreement."""


class Session:
    """An ONNX graph in ONNX Runtime. ``run`` is thread-safe.

    One thread by default: a worker a core gives more throughput than many threads a request.
    ``row_seconds`` is what a replay took for each row of its samples, ``sample_seconds`` for all.
    Raises GraphError if the graph is damaged, needs an operator that ONNX Runtime lacks, names data
    outside itself, or has another signature than the manifest's.
    """

    def __init__(
        self, content: bytes, function: Function, providers: tuple[str, ...], threads: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", NO_FOLDER
        )
        try:
            self._session = _loaded(content, options, providers)
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            raise GraphError(f"ONNX Runtime cannot load it: {_first_line(error)}") from None
        _same_tensors("inputs", self._session.get_inputs(), function.inputs)
        _same_tensors("outputs", self._session.get_outputs(), function.outputs)
        self.inputs = tuple(tensor.name for tensor in function.inputs)
        self.outputs = tuple(tensor.name for tensor in function.outputs)
        self._names = list(self.outputs)
        self.row_seconds = 0.0
        self.sample_seconds = 0.0
        self._keep_nothing = onnxruntime.RunOptions()
        self._keep_nothing.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, *arrays: Array) -> list[Array]:
        """Outputs in the manifest's order, for inputs in the manifest's order.

        Raises GraphError if the graph fails on them.
        """
        # What takes long takes much memory as well, and is not asked for all the time.
        options = self._keep_nothing if self.row_seconds > LONG_SECONDS else None
        try:
            results: list[Array] = self._session.run(
                self._names, dict(zip(self.inputs, arrays, strict=True)), options
            )
        except Exception as error:  # as above
            raise GraphError(_first_line(error)) from None
        return results

    def first_run(self, *arrays: Array) -> list[Array]:
        """The same for samples: takes the time, and keeps no memory that only they needed."""
        self.row_seconds = float("inf")
        results, seconds = self._timed(arrays)
        if seconds < QUICK_SECONDS:
            seconds = min(self._timed(arrays)[1] for _ in range(2))
        self.set_times(seconds, arrays[0].shape[0] if arrays[0].ndim else 1)
        return results

    def set_times(self, sample_seconds: float, sample_rows: int) -> None:
        """Say what a replay took elsewhere, and for how many rows."""
        self.sample_seconds = sample_seconds
        self.row_seconds = sample_seconds / max(1, sample_rows)

    def _timed(self, arrays: tuple[Array, ...]) -> tuple[list[Array], float]:
        started = time.perf_counter()
        results = self.run(*arrays)
        return results, time.perf_counter() - started


def _loaded(
    content: bytes, options: onnxruntime.SessionOptions, providers: tuple[str, ...]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # as above
        if "FusedMatMul" not in str(error):
            raise
    # ONNX Runtime of 1.23 and 1.24 fuses a product with a transpose in
    # float64 into an operator that it has no kernel for.
    unfused = ["MatmulTransposeFusion"]
    return onnxruntime.InferenceSession(
        content, options, providers=providers, disabled_optimizers=unfused
    )


def check_graph(content: bytes) -> None:
    """Raise GraphError if the graph has data outside itself, which nobody has verified."""
    try:
        external = has_external_data(content)
    except GraphUnreadable as error:
        raise GraphError(f"it cannot be read: {error}") from None
    if external:
        raise GraphError("it keeps weights in another file (external data); publish it as one file")


def replay(
    session: Session, name: str, function: Function, graph: Graph, samples: Mapping[str, Array]
) -> None:
    """Run ``samples`` through the graph; raise GraphError where it leaves PyTorch's answer.

    Samples are named ``<function>.<tensor>``. The formula and the loosest tolerances are
    ``contract.agreement``'s.
    """
    try:
        inputs = [samples[f"{name}.{tensor.name}"] for tensor in function.inputs]
        references = [samples[f"{name}.{tensor.name}"] for tensor in function.outputs]
    except KeyError as error:
        raise GraphError(f"samples.npz has no {error.args[0]!s:.80}") from None
    for tensor, sample in zip(
        (*function.inputs, *function.outputs), (*inputs, *references), strict=True
    ):
        if not sample.size:
            raise GraphError(f"the samples of {tensor.name} have no rows, and prove nothing")
        if sample.dtype.kind not in "fiu":
            raise GraphError(f"the samples of {tensor.name} are no numbers")
    if loose := too_loose(graph.agreement, graph.precision, references):
        raise GraphError(loose)
    try:
        outputs = session.first_run(*inputs)
    except GraphError as error:
        raise GraphError(f"it fails on its own samples: {error}") from None
    for tensor, output, reference in zip(function.outputs, outputs, references, strict=True):
        if output.dtype != np.dtype(tensor.dtype) or output.shape != reference.shape:
            raise GraphError(
                f"{tensor.name} is {output.dtype}{list(output.shape)}, "
                f"not {tensor.dtype}{list(reference.shape)}"
            )
        worst = disagreement(
            output,
            reference,
            graph.agreement.absolute_tolerance,
            graph.agreement.relative_tolerance,
        )
        if worst is not None:
            raise GraphError(f"{tensor.name} differs from PyTorch's by up to {worst:.3g}")


def _same_tensors(what: str, found: list[Any], tensors: tuple[Tensor, ...]) -> None:
    """Names, types and shapes are those of the manifest, as far as the graph says them."""
    expected = {tensor.name: tensor for tensor in tensors}
    if sorted(node.name for node in found) != sorted(expected):
        names = [str(node.name)[:80] for node in found]
        raise GraphError(f"its {what} are {names}, but the manifest says {list(expected)}")
    for node in found:
        tensor = expected[node.name]
        fits = ELEMENTS.get(node.type) == tensor.dtype
        if node.shape is not None:
            fits &= len(node.shape) == len(tensor.shape) and all(
                not isinstance(size, int) or size == wanted
                for size, wanted in zip(node.shape, tensor.shape, strict=True)
            )
        if not fits:
            kind = re.sub(r"[^a-z0-9()]", "", str(node.type))[:40]
            raise GraphError(
                f"{tensor.name} is {kind}{node.shape} in the graph, "
                f"but the manifest says {tensor.dtype}{shape_text(tensor.shape)}"
            )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
