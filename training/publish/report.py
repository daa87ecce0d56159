"""What the jobs' reports share: markdown, figures, and the plain files of an artifact.

Reports are read in a browser (the service renders them) and in a text editor. Figures keep to one
look: what is measured in blue, the model in orange, the truth in grey.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, wherever the job runs

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from contract.agreement import too_loose
from contract.manifest import Data, Function, Parameters, Training
from training.errors import JobError

DATA_COLOUR, MODEL_COLOUR, TRUTH_COLOUR = "#1f4e8c", "#d9622b", "#8a8f98"
ACCENTS = ("#2a9d6f", "#9b4f96", "#c0392b")
_STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "font.size": 10.5,
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "axes.edgecolor": "#b8bcc4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}

_MARKUP = re.compile(r"[\\`*\[\]<>$~&]|(?<![^\W_])_|_(?![^\W_])")
_NUMBERS = re.compile(r"\[\n([\s\d,.eE+-]+)\]")
_TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; numbers are set right, and a | in a cell is escaped.

    Names that others chose are to be ``literal``."""
    body = [list(row) for row in rows]
    numeric = [
        bool(body) and all(isinstance(row[column], int | float) for row in body)
        for column in range(len(headers))
    ]
    lines = [
        _line(headers),
        _line("---:" if right else "---" for right in numeric),
        *(_line(cell(value) for value in row) for row in body),
    ]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    """A value as a reader wants it: 3,177,418 · 0.01116 · 1.2e-10 · text as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def literal(text: str, longest: int = 80) -> str:
    """Another's words, such as the name of a class, as they are: in one line, at most ``longest``
    characters, none of which markdown takes for markup.

    Signs that turn the direction of what follows are left out.
    """
    text = " ".join(_TURNING.sub("", text).split())
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return _MARKUP.sub(r"\\\g<0>", text)


def code(text: str) -> str:
    """``text`` between as many backticks as it needs, in one line."""
    text = " ".join(text.splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def document(*parts: str) -> str:
    """Markdown parts with one empty line between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def parameters_section(parameters: Parameters | None) -> str:
    """Layers with their arithmetic, and the totals by other means; nothing without a count."""
    if parameters is None:
        return ""
    rows = [
        (
            layer.name,
            layer.type,
            layer.kernel or "",
            "×".join(str(size) for size in layer.output_shape) or "scalar",
            layer.formula,
            layer.count,
            layer.multiply_adds,
        )
        for layer in parameters.layers
    ]
    compared = ", ".join(f"{means} {count:,}" for means, count in parameters.compared.items())
    return document(
        "## Parameters",
        table(
            ("layer", "type", "kernel", "output", "arithmetic", "parameters", "multiply-adds"), rows
        ),
        f"Total: **{parameters.total:,} parameters**, {parameters.multiply_adds:,} multiply-adds "
        f"for one example. The same total by other means: {compared}.",
    )


def functions_section(functions: Mapping[str, Function]) -> str:
    """Each exported graph and how closely it agrees with PyTorch."""
    rows = [
        (
            f"`{name}`",
            graph.precision,
            f"{graph.agreement.maximum_absolute_error:.2g}",
            f"{graph.agreement.absolute_tolerance:.2g} + "
            f"{graph.agreement.relative_tolerance:.2g}·abs(value)",
        )
        for name, function in functions.items()
        for graph in (function.graph, *function.variants)
    ]
    return document(
        "## Exported functions",
        "Each graph was run with ONNX Runtime, at several batch sizes, and compared with what "
        "PyTorch gives.",
        table(("function", "precision", "largest difference", "allowed"), rows),
    )


def provenance_section(data: Data | None, training: Training | None) -> str:
    """Where data and checkpoint come from; nothing where that isn't known."""
    if data is None or training is None:
        return ""
    splits = ", ".join(f"{name} {rows:,}" for name, rows in data.splits.items())
    before = training.config.get("weights_of_version")
    weights = (
        [] if before is None else [("weights", f"those of version {before}, not trained again")]
    )
    return document(
        "## Provenance",
        table(
            ("what", "value"),
            [
                ("data", f"{literal(data.name)}, {data.rows:,} rows ({splits})"),
                ("sha256 of the data", f"`{data.sha256}`"),
                ("code", f"commit `{training.git_commit}`"),
                ("seed", str(training.seed)),
                ("epochs", str(training.epochs)),
                ("time", f"{training.wall_seconds:.1f} s"),
                ("device", training.device),
                ("PyTorch", training.torch_version),
                *weights,
            ],
        ),
    )


@contextmanager
def figure(
    path: Path, *, columns: int = 1, size: tuple[float, float] = (7.5, 4.4)
) -> Iterator[list[Axes]]:
    """Axes side by side to draw on, in the house style, saved as ``path`` (PNG) afterwards."""
    with matplotlib.rc_context(_STYLE):
        drawing, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False)
        try:
            yield list(axes[0])
            # No date and no version, so that the same numbers give the same bytes.
            drawing.savefig(path, metadata={"Software": None})
        finally:
            plt.close(drawing)


def write_samples(
    folder: Path, functions: Mapping[str, Function], samples: Mapping[str, NDArray[Any]]
) -> None:
    """samples.npz, with keys ``<function>.<tensor>``.

    Raises JobError where these samples prove nothing with the tolerances of ``functions``: the
    service would refuse what is published. (A variant that it refuses costs the variant alone.)
    """
    for name, function in functions.items():
        references = [samples[f"{name}.{tensor.name}"] for tensor in function.outputs]
        graph = function.graph
        if loose := too_loose(graph.agreement, graph.precision, references):
            raise JobError(f"{name}, {graph.precision}: {loose}; the service would refuse it")
    arrays: dict[str, Any] = dict(samples)
    np.savez_compressed(folder / "samples.npz", **arrays)


def write_checkpoint(folder: Path, network: nn.Module) -> None:
    """checkpoint.safetensors: parameters and buffers, contiguous, on the CPU."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "checkpoint.safetensors")


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """metrics.json, each list of numbers in one line: a thousand classes have a million counts."""
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


def write_history(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """history.csv, one row per epoch; the first row's keys are the columns."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_report(folder: Path, text: str) -> None:
    """report.md."""
    (folder / "report.md").write_text(text, encoding="utf-8")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
