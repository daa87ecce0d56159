"""Proof that an ONNX graph agrees with PyTorch, run as the service will run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.agreement import disagreement
from contract.manifest import Agreement
from training.errors import JobError

BATCH_SIZES = (1, 2, 7, 64)  # each graph is run at these before it is published


@dataclass(frozen=True)
class Tolerances:
    """How closely a graph must agree: ``contract.agreement`` has the formula."""

    absolute: float
    relative: float


class GraphRunner:
    """The graph in ``path``, run by ONNX Runtime on the CPU, as the service will.

    Called with arrays by input name, it returns arrays by output name. Raises JobError if ONNX
    Runtime has no kernel for an operator (it has no float64 convolution, for one).
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no base class of their own
            raise JobError(f"{path.name}: ONNX Runtime can't load the graph: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


def measure_agreement(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    tolerances: Tolerances,
) -> Agreement:
    """Run the graph in ``path`` with ONNX Runtime and compare every output with ``expected``.

    Besides the whole batch, batches of 1, 2, 7 and 64 made of the same examples are compared, so
    that a graph that only works for one size is found here.

    Raises JobError naming the output that disagrees, and by how much.
    """
    run = GraphRunner(path)
    rows = len(next(iter(inputs.values())))
    worst = 0.0
    for size in (rows, *BATCH_SIZES):
        chosen = np.arange(size) % rows
        found = run({name: value[chosen] for name, value in inputs.items()})
        for name, whole in expected.items():
            what = f"{path.name}: output {name} for a batch of {size}"
            worst = max(worst, _compare(what, found[name], whole[chosen], tolerances))
    return Agreement(
        maximum_absolute_error=worst,
        absolute_tolerance=tolerances.absolute,
        relative_tolerance=tolerances.relative,
    )


def _compare(
    what: str, found: NDArray[Any], expected: NDArray[Any], tolerances: Tolerances
) -> float:
    """Largest absolute difference; JobError if an element is outside the tolerance."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise JobError(
            f"{what}: the graph gives {found.dtype}{list(found.shape)}, "
            f"PyTorch {expected.dtype}{list(expected.shape)}"
        )
    if not np.isfinite(expected).all():
        raise JobError(f"{what}: PyTorch itself gives a value that is not finite")
    worst = disagreement(found, expected, tolerances.absolute, tolerances.relative)
    if worst is not None:
        raise JobError(
            f"{what}: the graph differs from PyTorch by {worst:.3g}, "
            f"more than {tolerances.absolute:g} + {tolerances.relative:g}·|value|"
        )
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max(initial=0.0))
