"""One ONNX graph, ready to run, and its replay against what PyTorch gave."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.manifest import Agreement, Function

Array = NDArray[Any]

# A row that takes longer is no work for the event loop.
LONG_SECONDS = 0.005
QUICK_SECONDS = 0.005


class GraphError(Exception):
    """A graph that cannot serve: unreadable, of another signature, or in disagreement."""


class Session:
    """An ONNX graph in ONNX Runtime. ``run`` is thread-safe.

    One thread by default: a worker a core gives more throughput than many threads a request.
    ``row_seconds`` is what a replay took for each row of its samples, ``sample_seconds`` for all.
    Raises GraphError if the graph is damaged, needs an operator that ONNX Runtime lacks, or has
    another signature than the manifest's.
    """

    def __init__(
        self, content: bytes, function: Function, providers: tuple[str, ...], threads: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            raise GraphError(f"ONNX Runtime cannot load it: {_first_line(error)}") from None
        _same_names("inputs", [i.name for i in self._session.get_inputs()], function.inputs)
        _same_names("outputs", [o.name for o in self._session.get_outputs()], function.outputs)
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
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            raise GraphError(_first_line(error)) from None
        return results

    def first_run(self, *arrays: Array) -> list[Array]:
        """The same for samples: takes the time, and keeps no memory that only they needed.

        What is quick is timed again, since everything takes longer when it is done first.
        """
        self.row_seconds = float("inf")
        results, self.sample_seconds = self._timed(arrays)
        if self.sample_seconds < QUICK_SECONDS:
            self.sample_seconds = min(self._timed(arrays)[1] for _ in range(2))
        self.row_seconds = self.sample_seconds / (arrays[0].shape[0] if arrays[0].ndim else 1)
        return results

    def _timed(self, arrays: tuple[Array, ...]) -> tuple[list[Array], float]:
        started = time.perf_counter()
        results = self.run(*arrays)
        return results, time.perf_counter() - started


def replay(
    session: Session,
    name: str,
    function: Function,
    agreement: Agreement,
    samples: Mapping[str, Array],
) -> None:
    """Run ``samples`` through the graph; raise GraphError where it leaves PyTorch's answer.

    Samples are named ``<function>.<tensor>``. An element agrees if |graph − reference| ≤
    absolute_tolerance + relative_tolerance·|reference|; NaN never agrees.
    """
    try:
        inputs = [samples[f"{name}.{tensor.name}"] for tensor in function.inputs]
        references = [samples[f"{name}.{tensor.name}"] for tensor in function.outputs]
    except KeyError as error:
        raise GraphError(f"samples.npz has no {error.args[0]!s:.80}") from None
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
        difference = np.abs(output.astype(np.float64) - reference)
        allowed = agreement.absolute_tolerance + agreement.relative_tolerance * np.abs(reference)
        if not np.all(difference <= allowed):
            worst = float(np.max(difference)) if difference.size else 0.0
            raise GraphError(f"{tensor.name} differs from PyTorch's by up to {worst:.3g}")


def _same_names(what: str, found: list[str], tensors: tuple[Any, ...]) -> None:
    expected = [tensor.name for tensor in tensors]
    if sorted(found) != sorted(expected):
        raise GraphError(f"its {what} are {found}, but the manifest says {expected}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
