"""``/homework``: every question of the homework with its answer, from the models that serve now.

The text is Markdown, one template a language: the page, the download and the notebook are made of
the same. Figures come from the models and their manifests, derivatives from running the graphs.
"""

import ast
import csv
import re
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from contract.intervals import quantile, within_reach
from contract.manifest import Parameters
from service.api import w10
from service.api.homework_models import COMMANDS
from service.runtime.dataplane import infer
from service.runtime.errors import ModelError
from service.web.openapi import contents, json_response
from service.web.rendered import Rendered, lay_out
from service.web.state import Services, services
from service.web.templating import templates

Language = Literal["en", "zh-Hant"]
LANGUAGES: dict[Language, str] = {"en": "English", "zh-Hant": "繁體中文"}

PLACES = (3.0, 0.1, -0.5)  # where the homework asks for slopes
CURVES = ("curve-mlp", "curve-poly", "curve-gp")
LEVEL = 0.95  # of the intervals
CLASSIFIERS = ("cifar-baseline", "cifar-improved")
DRAWINGS = ("network.svg", "network.zh-Hant.svg")
SCORES = ("top1", "top5", "loss")
SPLITS = ("train", "validation", "test")
# Written by ``python -m training ablation``; it belongs to the homework, not to a model.
ABLATION = Path(__file__).parents[1] / "static" / "homework" / "ablation.csv"
CELL = "<!-- cell -->"  # begins a new cell of the notebook
NO_ADDRESS = "http://service.invalid"  # stands for the service's, which each request gives
ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
LINES: dict[Language, str] = {"en": "lines {}–{}", "zh-Hant": "第 {}–{} 行"}


def router() -> APIRouter:
    """The page and its downloads."""
    routes = APIRouter(prefix="/homework", tags=["homework"])
    texts, pages = Rendered(), Rendered()

    async def written(request: Request, language: Language) -> str:
        shared = services(request)
        key = _made_of(shared, language)
        return await texts.get(key, lambda: write(shared, language, NO_ADDRESS))

    async def to_keep(request: Request, language: Language) -> str:
        """The Markdown for a file elsewhere, from where a relative link would lead nowhere."""
        return _absolute(await written(request, language), _address(request))

    @routes.get("", summary="Read the homework", response_class=HTMLResponse)
    async def page(request: Request, lang: Language | None = None) -> Response:
        """Every question with its answer, figures and code; English or Traditional Chinese."""
        language = lang or _preferred(request.headers.get("accept-language", ""))
        text = (await written(request, language)).replace(CELL, "")
        pool = services(request).resources.pages
        page = await pages.get(text, lambda: lay_out(pool, lambda: text, _plot))
        context = {
            "language": language,
            "languages": LANGUAGES,
            "page": page.replace(NO_ADDRESS, escape(_address(request))),
        }
        return templates.TemplateResponse(request, "homework/page.html", context)

    @routes.get(
        "/homework.md",
        summary="Download the homework as Markdown",
        response_class=Response,
        responses={200: contents("text/markdown")},
    )
    async def markdown(request: Request, lang: Language = "en") -> Response:
        """The same text, with formulas as LaTeX; its links and pictures lead to this service."""
        text = await to_keep(request, lang)
        return Response(text.replace(CELL, ""), media_type="text/markdown; charset=utf-8")

    @routes.get(
        "/homework.ipynb",
        summary="Download the homework as a notebook",
        responses={200: contents("application/json")},
    )
    async def notebook(request: Request, lang: Language = "en") -> Response:
        """A Jupyter notebook whose cells ask this service for every figure again."""
        return json_response(_notebook(await to_keep(request, lang)))

    return routes


def _address(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _made_of(shared: Services, language: Language) -> tuple[str, ...]:
    """What the text depends on: its language, the ablation, and the models that it asks."""
    serving = (shared.registry.models.get(name) for name in (*CURVES, *CLASSIFIERS, w10.MODEL))
    return language, str(ABLATION), *(model.artifact.digest if model else "" for model in serving)


def _absolute(text: str, address: str) -> str:
    """The text with whole addresses for its links, and in its commands."""

    def absolute(match: re.Match[str]) -> str:
        mark, words, link = match.groups()
        link = _plot(link) if mark else link.removeprefix("./")
        return f"{mark}[{words}]({address}/{link})" if link is not None else words

    return LINK.sub(absolute, text).replace(NO_ADDRESS, address)


async def write(shared: Services, language: Language, address: str) -> str:
    """The homework as Markdown, with what the models in service say.

    Its links are relative to the service's ``address``, which its commands name.
    """
    curves = {name: await _curve(shared, name) for name in CURVES}
    known: dict[str, Any] = next((curve for curve in curves.values() if curve), {"slopes": []})
    context = {
        "address": address.rstrip("/"),
        "places": PLACES,
        "curves": curves,
        "truth": [row["truth"] for row in known["slopes"]] or [None] * len(PLACES),
        "classifiers": {name: _classifier(shared, name) for name in CLASSIFIERS},
        "ablation": ablation(ABLATION),
        "w10": await _w10(shared),
        "commands": COMMANDS,
        "example": w10.EXAMPLE,
        "code": _naming_code(language),
        "cell": CELL,
    }
    template = templates.env.get_template(f"homework/{language}.md")
    return template.render(context).strip() + "\n"


def _naming_code(language: Language) -> Callable[[str, str], str]:
    """Names a function or class in a file, with its lines where the file is there to be read."""

    def named(path: str, name: str) -> str:
        lines = code_lines(ROOT / path, name)
        where = f", {LINES[language].format(*lines)}" if lines else ""
        return f"`{path}` (`{name}`{where})"

    return named


@cache
def code_lines(path: Path, name: str) -> tuple[int, int] | None:
    """First and last line of a function or class of a file; None where there is none.

    The image of the service, for one, has no training code.
    """
    if not path.is_file():
        return None
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node.lineno, node.end_lineno or node.lineno
    return None


async def _curve(shared: Services, name: str) -> dict[str, Any] | None:
    """What a curve answers; None if it isn't in service."""
    try:
        model, curve = shared.registry.curve(name)
    except ModelError:
        return None
    x = np.array(PLACES)
    slope = curve.derivatives[1]
    errors = [curve.deviations[1]] if 1 in curve.deviations else []
    found = await infer(model, {curve.x: x}, [curve.y, slope, *errors], shared.queue)
    reach = quantile(LEVEL, curve.degrees_of_freedom)
    known = within_reach(x, curve.domain)
    halves = [reach * found[errors[0]][i] if errors and known[i] else None for i in range(len(x))]
    metrics: Any = model.manifest.metrics
    truth = _truth(metrics.get("derivatives"))
    return {
        "version": model.manifest.version,
        "mse": _number(metrics.get("mse")),
        "degree": metrics.get("degree"),
        "coefficients": getattr(model.manifest, "coefficients", None),
        "scaled_coefficients": getattr(model.manifest, "scaled_coefficients", None),
        "scaling": getattr(model.manifest, "scaling", None),
        "data": model.manifest.data,
        "hidden": _hidden(model.manifest.parameters),
        "parameters": model.manifest.parameters,
        "slopes": [
            {"x": place, "y": y, "slope": value, "half": half, "truth": truth.get(place)}
            for place, y, value, half in zip(
                PLACES, found[curve.y], found[slope], halves, strict=True
            )
        ],
    }


def _hidden(parameters: Parameters | None) -> list[int]:
    """Units of each hidden layer of a network of linear layers; empty for any other model."""
    layers = [layer for layer in parameters.layers if layer.type == "Linear"] if parameters else []
    return [layer.output_shape[-1] for layer in layers[:-1]]


@cache
def ablation(path: Path) -> dict[str, Any] | None:
    """What each step from the table to our own network gave; None if none was trained.

    ``points`` are of validation top-1, against the step before; None for the first step.
    """
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return None
    shares = [float(row["validation_top1"]) for row in rows]
    images = int(rows[0]["validation_images"])
    return {
        "epochs": int(rows[0]["epochs"]),
        "train_images": int(rows[0]["train_images"]),
        "validation_images": images,
        "seed": int(rows[0]["seed"]),
        "standard_error": max((share * (1 - share) / images) ** 0.5 for share in shares),
        "steps": [
            {
                "name": row["step"],
                "parameters": int(row["parameters"]),
                "multiply_adds": int(row["multiply_adds"]),
                "top1": share,
                "points": None if before is None else 100 * (share - before),
            }
            for row, share, before in zip(rows, shares, [None, *shares[:-1]], strict=True)
        ],
    }


def _classifier(shared: Services, name: str) -> dict[str, Any] | None:
    """A classifier's parameters and scores; None if it isn't in service."""
    try:
        model, _ = shared.registry.classifier(name)
    except ModelError:
        return None
    manifest = model.manifest
    return {
        "version": manifest.version,
        "parameters": manifest.parameters,
        "scores": {name: _by_split(manifest.metrics.get(name)) for name in SCORES},
        "training": manifest.training,
    }


def _by_split(scores: object) -> dict[str, float | None]:
    """A score of each split; None where it was not measured."""
    found = scores if isinstance(scores, dict) else {}
    return {split: _number(found.get(split)) for split in SPLITS}


def _truth(rows: object) -> dict[float, float | None]:
    """The slopes of the function that the data is of, by x, as far as a manifest has them."""
    found: dict[float, float | None] = {}
    for row in rows if isinstance(rows, list) else []:
        x = _number(row.get("x")) if isinstance(row, dict) else None
        if x is not None:
            found[x] = _number(row.get("truth"))
    return found


def _number(value: object) -> float | None:
    """A figure of a manifest, which may hold any JSON; None if it is no number."""
    try:
        return (
            float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        )
    except OverflowError:
        return None


async def _w10(shared: Services) -> dict[str, Any] | None:
    """The third question's example, worked; None if its model isn't in service."""
    try:
        model, function = shared.registry.loss_gradient(w10.MODEL)
    except ModelError:
        return None
    inputs = {
        tensor.name: np.array(
            [w10.EXAMPLE["input" if tensor.name == "x" else tensor.name]], np.float64
        )
        for tensor in function.inputs
    }
    wanted = [tensor.name for tensor in function.outputs]
    outputs = await infer(model, inputs, wanted, shared.queue)
    found = {name: values[0].tolist() for name, values in outputs.items()}
    return found | _by_hand(found) | {"version": model.manifest.version}


def _by_hand(found: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """The factors of the sums that a person writes out, from the example and what was ``found``."""
    x, kernel, weights = (np.array(w10.EXAMPLE[name]) for name in ("input", "kernel", "weights"))

    def pairs(first: Any, second: Any) -> list[tuple[float, float]]:
        return list(zip(np.ravel(first).tolist(), np.ravel(second).tolist(), strict=True))

    return {
        "first_preactivation": pairs(kernel, x[:3, :3]),
        "prediction_terms": pairs(weights, found["activation"]),
        "kernel_terms": pairs(found["preactivation_gradient"], x[1:3, :2]),
        "weight_terms": [(found["prediction_gradient"], found["activation"][0][0])],
    }


def _plot(name: str) -> str | None:
    """The address of a plot that the text names as ``model/plot.png``."""
    if name in DRAWINGS:
        return f"static/homework/{name}"
    model, _, plot = name.partition("/")
    return f"models/{model}/report/{plot}" if model in COMMANDS and plot else None


def _preferred(header: str) -> Language:
    """The language that a browser asks for first, of those there are (RFC 9110, 12.5.4)."""
    wanted = []
    for number, part in enumerate(header.split(",")):
        tag, _, quality = part.partition(";q=")
        try:
            wanted.append((-float(quality or 1), number, tag.strip().lower()))
        except ValueError:
            continue
    for _, _, tag in sorted(wanted):
        if tag.startswith("zh"):
            return "zh-Hant"
        if tag.startswith("en"):
            return "en"
    return "en"


def _notebook(text: str) -> dict[str, Any]:
    """Jupyter's format 4: the text in cells, and its Python blocks as code that can be run."""
    cells: list[dict[str, Any]] = []
    for part in text.split(CELL):
        for number, piece in enumerate(part.split("```python\n")):
            code, separator, rest = piece.partition("```") if number else ("", "", piece)
            if separator:
                cells.append(_code(code))
            if rest.strip():
                cells.append({"cell_type": "markdown", "metadata": {}, "source": rest.strip()})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": {},
        "source": source.strip(),
        "outputs": [],
        "execution_count": None,
    }
