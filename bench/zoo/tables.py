"""docs/exporting.md: what was tried, and what became of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.zoo.models import MODELS, Model
from bench.zoo.torchvision_models import CLASSIFIERS

Result = dict[str, Any]  # a line of ``attempt``
Results = Mapping[str, list[Result]]  # by model
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "exporting.md"
INTRODUCTION = """# What can be published

Written by `python -m bench.zoo`: {count} small networks and functions, deliberately hard ones among
them, each with derivatives in reverse mode; some that must not be published; and the smallest
classifier of every family in torchvision with random weights. A function **works** if its graph
agrees with eager autograd at 1, 2, 7 and 64 rows: within 1e-9 of the largest number in float64,
within 1e-5 in float32. The figure is the largest error found, as a share of the largest number.
Examples at a kink (a ReLU or max-pooling at its threshold, where rounding decides what the
derivative is) are left out, if two or more remain; how many is said.

[extending.md](extending.md) says how to publish, and what to do about each reason.
"""


def write(results: Results) -> None:
    """The document, from what was tried so far; says how much was not."""
    good = [model for model in MODELS if not model.refused]
    bad = [model for model in MODELS if model.refused]
    DOCUMENT.write_text(
        "\n".join(
            [
                INTRODUCTION.format(count=len(good)),
                "## Networks and functions\n",
                *_models(good, results),
                "## What must be refused\n",
                *_refused(bad, results),
                "## Classifiers of torchvision\n",
                *_classifiers(results),
            ]
        ),
        encoding="utf-8",
    )


def _read(results: Results, name: str) -> dict[str, Result] | None:
    return {each["function"]: each for each in results[name]} if name in results else None


def _cell(result: Result | None) -> str:
    if result is None:
        return "not tried"
    if result["outcome"] == "works":
        left_out = result.get("left_out")
        kinks = f"; {left_out} at a kink" if left_out else ""
        return f"works, {result['relative_error']:.0e}{kinks}"
    kind = result["kind"]
    detail = result["outcome"].partition(f"{kind}: ")[2].partition(";")[0]
    return f"{kind}: {detail[:90]}".replace("|", "/") if detail else str(kind)


def _tried(models: Sequence[Model], results: Results) -> Iterator[tuple[Model, str, Result | None]]:
    """Every function of every model, with what became of it."""
    for model in models:
        found = _read(results, model.name)
        for function in model.functions:
            yield model, function, None if found is None else _of(found, function)


def _of(found: dict[str, Result], function: str) -> Result | None:
    # A function that was refused as a whole, or a process that was stopped, has one line.
    return found.get(function) or found.get("the rest")


def _models(models: Sequence[Model], results: Results) -> list[str]:
    tried = list(_tried(models, results))
    done = [result for _, _, result in tried if result is not None]
    works = sum(result["outcome"] == "works" for result in done)
    waiting = f"; {len(tried) - len(done)} were not tried" if len(done) < len(tried) else ""
    return [
        f"**{works} of {len(done)} tried work**{waiting}.\n",
        "| model | function | |",
        "|---|---|---|",
        *(
            f"| {model.name} | `{function}` | {_cell(result)} |"
            for model, function, result in tried
        ),
        "",
    ]


def _refused(models: Sequence[Model], results: Results) -> list[str]:
    tried = list(_tried(models, results))
    right = sum(
        result is not None and result["kind"] == model.refused for model, _, result in tried
    )
    return [
        "These branch on data, leave PyTorch, are random or mix the rows: no graph is right.\n",
        f"**{right} of {len(tried)} are refused for the right reason.**\n",
        "| model | function | refused with |",
        "|---|---|---|",
        *(
            f"| {model.name} | `{function}` | {_line(result)} |"
            for model, function, result in tried
        ),
        "",
    ]


def _line(result: Result | None) -> str:
    return "not tried" if result is None else str(result["outcome"]).replace("|", "/")


def _classifiers(results: Results) -> list[str]:
    columns = ("probabilities", "saliency", "vjp")
    rows, works, tried = [], 0, 0
    for name, side in CLASSIFIERS.items():
        found = _read(results, name)
        cells = []
        for column in columns:
            result = None if found is None else _of(found, column)
            tried += result is not None
            works += result is not None and result["outcome"] == "works"
            cells.append(_cell(result))
        rows.append(f"| {name} | {side} | {' | '.join(cells)} |")
    return [
        f"**{works} of {tried} tried work.**\n",
        "| classifier | side | probabilities | saliency | gradient by the input |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
