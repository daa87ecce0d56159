"""docs/exporting.md: what was tried, and what became of it."""

import json
from pathlib import Path
from typing import Any

from bench.zoo.models import MODELS
from bench.zoo.torchvision_models import CLASSIFIERS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "exporting.md"
INTRODUCTION = """# What can be published

Written by `python -m bench.zoo`: {count} small networks and functions, deliberately hard ones among
them, each with derivatives in reverse mode; and the smallest classifier of every family in
torchvision with random weights. A function **works** if its graph agrees with eager autograd at
1, 2, 7 and 64 rows: within 1e-9 of the largest number in float64, within 1e-5 in float32. The
figure is the largest error found, as a share of the largest number.

[extending.md](extending.md) says how to publish, and what to do about each reason.
"""


def write(results: Path) -> None:
    """The document, from what was tried so far; says how much was not."""
    DOCUMENT.write_text(
        "\n".join(
            [
                INTRODUCTION.format(count=len(MODELS)),
                "## Networks and functions\n",
                *_models(results),
                "## Classifiers of torchvision\n",
                *_classifiers(results),
            ]
        ),
        encoding="utf-8",
    )


def _read(results: Path, name: str) -> dict[str, dict[str, Any]] | None:
    path = results / f"{name}.json"
    if not path.exists():
        return None
    return {each["function"]: each for each in json.loads(path.read_text())}


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "not tried"
    if result["outcome"] == "works":
        return f"works, {result['relative_error']:.0e}"
    kind = result["kind"]
    detail = result["outcome"].partition(f"{kind}: ")[2].partition(";")[0]
    return f"{kind}: {detail[:90]}".replace("|", "/") if detail else str(kind)


def _models(results: Path) -> list[str]:
    works = tried = right = 0
    rows = []
    for model in MODELS:
        found = _read(results, model.name)
        for function in model.functions:
            result = None if found is None else found.get(function) or found.get("the rest")
            tried += result is not None
            works += result is not None and result["outcome"] == "works"
            refused = model.refused is not None and result is not None
            right += bool(refused and result and result["kind"] == model.refused)
            rows.append(f"| {model.name} | `{function}` | {_cell(result)} |")
    must = sum(len(model.functions) for model in MODELS if model.refused)
    return [
        f"**{works} of {tried} tried work**; of {must} that must not be published {right} were "
        "refused for the right reason.\n",
        "| model | function | |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _classifiers(results: Path) -> list[str]:
    columns = ("probabilities", "saliency", "vjp")
    rows, works, tried = [], 0, 0
    for name, side in CLASSIFIERS.items():
        found = _read(results, name)
        cells = []
        for column in columns:
            result = None if found is None else found.get(column) or found.get("the rest")
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
