"""report.md of a function: tensors, agreement, sizes, times, and slices as pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.manifest import CommonManifest, FunctionManifest
from contract.manifest import Tensor as TensorInfo
from training.functions import eager
from training.functions.function_spec import FunctionSpec
from training.publish import report
from training.publish.report import ACCENTS, MODEL_COLOUR

SLICES, OUTPUTS, POINTS = 4, 3, 101
RUNS = 20


def write(
    manifest: CommonManifest,
    folder: Path,
    spec: FunctionSpec | None,
    inputs: Mapping[str, Tensor],
    references: Mapping[str, Callable[[], object]],
    differences: Mapping[str, float],
    skipped: Sequence[str],
) -> str:
    """The report of a published function or classifier; draws its slices into ``folder``.

    ``references`` computes one row of each function eagerly, for the comparison of times.
    """
    drawn = draw_slices(folder, spec, inputs) if spec else []
    checks = [
        f"Autograd's {order} derivatives agree with central differences in float64 to "
        f"{error:.1e} of their size."
        for order, error in differences.items()
    ]
    return report.document(
        f"# {manifest.model}",
        getattr(manifest, "description", None) or "",
        _tensors(manifest),
        report.functions_section(manifest.functions),
        "\n".join(checks)
        or "No derivative was compared with central differences: none was asked, or the function "
        "can't be computed in float64.",
        "## Sizes and times",
        _times(manifest, folder, references),
        "".join(f"- not published: {reason}\n" for reason in skipped),
        "## Slices\n\nThe first numbers of the outputs along the first inputs, all others as in "
        "the first example."
        if drawn
        else "",
        *(f"![Along {label}]({file})" for file, label in drawn),
    )


def imported(manifest: FunctionManifest, folder: Path) -> str:
    """The report of an imported file."""
    return report.document(
        f"# {manifest.model}",
        manifest.description or "",
        "Values only: an ONNX file says nothing of derivatives. Checked against ONNX's reference "
        "evaluator.",
        _tensors(manifest),
        report.functions_section(manifest.functions),
        _times(manifest, folder, {}),
    )


def _tensors(manifest: CommonManifest) -> str:
    functions = manifest.functions
    rows = [
        (f"`{name}`", _listed(entry.inputs), _listed(entry.outputs))
        for name, entry in functions.items()
    ]
    return report.document("## Inputs and outputs", report.table(("function", "in", "out"), rows))


def _listed(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(
        f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]" for tensor in tensors
    )


def _times(
    manifest: CommonManifest, folder: Path, references: Mapping[str, Callable[[], object]]
) -> str:
    """Size of each graph; median time of one row on one thread, beside eager PyTorch."""
    rows = []
    for name, entry in manifest.functions.items():
        path = folder / entry.graph.file
        graph = _graph_seconds(path)
        eagerly = _seconds(references[name]) if name in references else None
        rows.append(
            (
                f"`{name}`",
                f"{path.stat().st_size / 1024:,.1f} KiB",
                f"{graph * 1e3:.3f} ms",
                f"{eagerly * 1e3:.3f} ms" if eagerly else "–",
            )
        )
    return report.table(("function", "graph", "a call, one row", "the same eagerly"), rows)


def _graph_seconds(path: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    feed: dict[str, NDArray[Any]] = {
        each.name: np.ones(
            [size if isinstance(size, int) else 1 for size in each.shape],
            types.get(each.type, np.int64),
        )
        for each in session.get_inputs()
    }
    return _seconds(lambda: session.run(None, feed))


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
        if sum(times) > 1.0:
            break
    return float(np.median(times))


def draw_slices(
    folder: Path, spec: FunctionSpec, inputs: Mapping[str, Tensor]
) -> list[tuple[str, str]]:
    """A picture for each of the first real numbers among the inputs: file and label."""
    drawn: list[tuple[str, str]] = []
    for place in spec.wrt:
        tensor_spec = spec.inputs[place]
        for number in range(min(tensor_spec.size, SLICES)):
            if len(drawn) == SLICES:
                return drawn
            label = f"{tensor_spec.name}[{number}]" if tensor_spec.shape else tensor_spec.name
            if _draw_slice(folder / f"slice{len(drawn)}.png", spec, inputs, place, number):
                drawn.append((f"slice{len(drawn)}.png", label))
    return drawn


def _draw_slice(
    path: Path, spec: FunctionSpec, inputs: Mapping[str, Tensor], place: int, number: int
) -> bool:
    tensor_spec = spec.inputs[place]
    every = list(inputs.values())
    whole = every[place]
    seen = (
        whole.reshape(len(whole), -1)[:, number]
        if tensor_spec.batched
        else whole.reshape(-1)[number]
    )
    low, high = float(seen.min()), float(seen.max())
    if not tensor_spec.batched or high <= low or sum(p.size for p in spec.inputs) > 10_000:
        return False
    axis = torch.linspace(low, high, POINTS, dtype=tensor_spec.dtype)
    rows = [
        tensor[:1].expand(POINTS, *tensor.shape[1:]).clone() if each.batched else tensor
        for tensor, each in zip(every, spec.inputs, strict=True)
    ]
    rows[place].reshape(POINTS, -1)[:, number] = axis
    outputs = eager.value(spec, rows)
    name = f"{tensor_spec.name}[{number}]" if tensor_spec.shape else tensor_spec.name
    with report.figure(path, size=(6.0, 3.4)) as (axes,):
        colours = [MODEL_COLOUR, *ACCENTS]
        lines = 0
        for output, described_output in zip(outputs, spec.outputs, strict=True):
            for index in range(min(described_output.size, OUTPUTS)):
                if lines == len(colours):
                    break
                numbers = output.reshape(POINTS, -1)[:, index].double().numpy()
                text = described_output.name + (f"[{index}]" if described_output.size > 1 else "")
                axes.plot(axis.double().numpy(), numbers, color=colours[lines], label=text)
                lines += 1
        axes.set_xlabel(name)
        axes.legend()
    return True
