"""Fit y = f(x) to points by a network, a polynomial and a Gaussian process; publish all three.

python -m training curve [--data points.csv] [--name NAME] [--degree 6] [--seed 0]

Each is published with f′, f″ and f‴, and with the standard deviations of f, f′ and f″.
"""

import argparse
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.manifest import Data
from contract.remote import open_draft
from training import naming, options
from training.data import stand_in
from training.data.points import Points, read_points
from training.errors import JobError
from training.fit.fitted import Fitted, r_squared, residuals_correlate
from training.fit.mlp import MLPFit, fit_mlp
from training.fit.polynomial import HIGHEST_DEGREE, PolynomialFit, fit_polynomial, require_enough
from training.fit.process import LEAST_POINTS, ProcessFit, fit_process
from training.progress import told
from training.publish.curve_artifact import Task, write_artifact
from training.publish.slopes import Slope

HOMEWORK = "curve"  # what its models' names begin with
MSE_LIMIT = 0.1  # the homework's rule
ASKED = (3.0, 0.1, -0.5)  # where the homework wants the derivative
USELESS = 0.5  # R²; a fit below it explains next to nothing
ROOM = len("-poly")
SUFFIXES = ("mlp", "poly", "gp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training curve``."""
    parser.add_argument(
        "--data", type=Path, default=None, metavar="CSV",
        help="points: columns x and y; by default the stand-in for the homework's",
    )  # fmt: skip
    naming.add_arguments(
        parser, "that of the data's file; the models are NAME-mlp, NAME-poly and NAME-gp"
    )
    parser.add_argument(
        "--decimal",
        choices=(".", ","),
        default=None,
        help="the decimal mark in the CSV; found out where only one will do",
    )
    parser.add_argument(
        "--header",
        action="store_true",
        help="the first row names the columns, even where it looks like numbers",
    )
    parser.add_argument(
        "--degree",
        type=_degree,
        default=None,
        help="of the polynomial; by default the lowest whose leave-one-out error is within one "
        "standard error of the smallest",
    )
    parser.add_argument(
        "--mse",
        type=_limit,
        default=None,
        metavar="LIMIT|none",
        help="a model is published only if its mean squared error is under this; by default "
        f"{MSE_LIMIT} for models called {HOMEWORK}-…, none for others",
    )
    parser.add_argument(
        "--at",
        type=_places,
        default=None,
        metavar="X,X,…",
        help="where to print f′; by default 3, 0.1 and -0.5 if inside the data, else its quartiles",
    )
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="for the network's first weights"
    )


@dataclass(frozen=True)
class Model:
    """A fit with the name it is published by, and how long it took."""

    name: str
    kind: str  # in words
    fit: Fitted
    seconds: float


def run(arguments: argparse.Namespace) -> None:
    """Fit, check, publish. Raises JobError if a model can't be published, after those that can."""
    source = arguments.data or stand_in.PATH
    points = read_points(
        source, decimal=arguments.decimal, header=True if arguments.header else None
    )
    name = HOMEWORK
    if arguments.data or arguments.name:
        name = naming.choose_name(arguments.name, source, room=ROOM)
    data = Data(
        name=points.name,
        sha256=points.sha256,
        rows=len(points.x),
        splits={"train": len(points.x)},
    )
    for suffix in SUFFIXES:
        naming.require_replaceable(
            arguments.artifacts, f"{name}-{suffix}", data, replace=arguments.replace
        )
    require_enough(points.distinct, arguments.degree)
    print(f"{points.name}: {len(points.x)} points, x from {points.x.min():g} to {points.x.max():g}")
    for note in points.notes:
        print(f"{points.name}: {note}")
    limit = _limit_for(name, arguments.mse)
    models, refused = [], []
    for suffix, kind, fit in _fitters(points, arguments):
        started = time.monotonic()
        try:
            with told(f"fitting the {kind}"):
                model = Model(f"{name}-{suffix}", kind, fit(), time.monotonic() - started)
            _judge(model, points, limit)
        except JobError as error:
            refused.append(f"{name}-{suffix}: {error}")
        else:
            models.append(model)
    places = arguments.at or _places_for(points)
    # All drafts are complete before one is published: an error in a check leaves none.
    with ExitStack() as drafts:
        prepared = []
        for model in models:
            draft = drafts.enter_context(open_draft(arguments.artifacts, model.name))
            task = Task(model.fit, points, data, places, arguments.seed, model.seconds, limit)
            with told(f"exporting {model.name}, and comparing it with PyTorch"):
                manifest, slopes = write_artifact(draft, task)
            _print_slopes(model.name, slopes)
            prepared.append((draft, manifest))
        for draft, manifest in prepared:
            draft.publish(manifest)
            print(f"published {draft.published}")
    if refused:
        raise JobError("not published: " + "; ".join(refused))


def _fitters(
    points: Points, arguments: argparse.Namespace
) -> list[tuple[str, str, Callable[[], Fitted]]]:
    """What to fit: the end of its name, its name in words, and how. The quick ones come first."""
    x, y = points.x, points.y

    def network() -> MLPFit:
        fit = fit_mlp(x, y, arguments.seed, print)
        if fit.seen < len(x):
            print(f"  compared on {fit.seen:,} of the {len(x):,} points; then fitted to all")
        if fit.at_edge:
            print("  warning: the error was least at an end of the range of weight decays")
        return fit

    def process() -> ProcessFit:
        fit = fit_process(x, y)
        if fit.kernels < len(x):
            print(f"  {len(x):,} points averaged to {fit.kernels}, neighbours together")
        return fit

    fitters: list[tuple[str, str, Callable[[], Fitted]]] = [
        ("poly", "polynomial", lambda: fit_polynomial(x, y, arguments.degree))
    ]
    if points.distinct >= LEAST_POINTS:
        fitters.append(("gp", "Gaussian process", process))
    else:
        print(f"no Gaussian process: it needs at least {LEAST_POINTS} different x")
    return [*fitters, ("mlp", "network", network)]


def _judge(model: Model, points: Points, limit: float | None) -> None:
    """Print how good a fit is; JobError if it misses the limit, a warning if it is useless."""
    fit = model.fit
    explained = r_squared(fit.mse, points.y)
    print(f"{model.kind}: {_described(fit)}MSE {fit.mse:.5g}, R² {explained:.4f}")
    if isinstance(fit, PolynomialFit):
        _print_coefficients(fit)
    if limit is not None and not fit.mse < limit:
        raise JobError(
            f"the {model.kind} reaches a mean squared error of {fit.mse:.4g}, which is not under "
            f"{limit:g}; {_advice(model, points)}, or set another limit by --mse"
        )
    if explained < USELESS:
        print(
            f"warning: the {model.kind} explains little of y (R² {explained:.2f}); "
            f"{_advice(model, points)}"
        )


def _print_coefficients(fit: PolynomialFit) -> None:
    if fit.coefficients is None:
        print(
            f"  in t = (x − {fit.scaling[0]!r}) / {fit.scaling[1]!r}; in x rounding would put them "
            f"off by {fit.off:.1e} of the fit's range"
        )
    letter, values = ("c", fit.scaled_coefficients)
    if fit.coefficients is not None:
        letter, values = ("w", fit.coefficients)
    for power, value in zip(range(fit.degree, -1, -1), values, strict=True):
        print(f"  {letter}_{power} = {value!r}")


def _described(fit: Fitted) -> str:
    if isinstance(fit, PolynomialFit):
        return f"degree {fit.degree}, "
    if isinstance(fit, MLPFit):
        return f"hidden layers {fit.chosen.hidden}, weight decay {fit.chosen.weight_decay:.2g}, "
    return ""


def _advice(model: Model, points: Points) -> str:
    """What could be done about a poor fit, by its cause."""
    x, y, fit = points.x, points.y, model.fit
    if residuals_correlate(fit.network, x, y) < 0.5 or len(x) < 8:
        return "what is left looks like noise: measure more often, or more precisely"
    if isinstance(fit, PolynomialFit):
        if fit.degree < HIGHEST_DEGREE and fit.degree == fit.errors[-1].degree:
            return "what is left isn't noise, the degree is too low: try a higher --degree"
        return (
            "what is left isn't noise: y bends more often than a polynomial of degree "
            f"{fit.errors[-1].degree} does; --degree up to 30 may do, or use another of the models"
        )
    return (
        "what is left isn't noise: y bends too often for it; fit a part of the range of x, "
        "or use another of the models"
    )


def _limit_for(name: str, given: float | None) -> float | None:
    """The limit of the mean squared error; None for none."""
    if given is not None:
        return None if math.isinf(given) else given
    return MSE_LIMIT if name == HOMEWORK or name.startswith(f"{HOMEWORK}-") else None


def _places_for(points: Points) -> tuple[float, ...]:
    """Where f′ is printed: the homework's places if inside the data, else its quartiles."""
    low, high = float(points.x.min()), float(points.x.max())
    if all(low <= place <= high for place in ASKED):
        return ASKED
    return tuple(float(place) for place in np.quantile(points.x, (0.25, 0.5, 0.75)))


def _print_slopes(model: str, slopes: list[Slope]) -> None:
    print(f"{model}:")
    for slope in slopes:
        error = "" if slope.standard_error is None else f" ± {slope.standard_error:.4g}"
        analytic = "" if slope.analytic is None else f"analytic {slope.analytic:.10f}, "
        truth = "" if slope.truth is None else f", truth {slope.truth:.4f}"
        beyond = " (extrapolated)" if slope.extrapolated else ""
        print(
            f"  f′({slope.x:g}) = {slope.autograd:.10f}{error} by autograd, {analytic}"
            f"central differences {slope.central:.10f}, "
            f"disagreement {slope.disagreement:.1e}{truth}{beyond}"
        )


def _degree(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 <= int(text) <= 30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a degree; give a number from 0 to 30")
    return int(text)


def _limit(text: str) -> float:
    """A positive number, or infinity for ``none``."""
    try:
        value = math.inf if text == "none" else float(text)
    except ValueError:
        value = math.nan
    if not value > 0 or (math.isinf(value) and text != "none"):
        raise argparse.ArgumentTypeError(f"{text!r} is no limit; give a positive number, or none")
    return value


def _places(text: str) -> tuple[float, ...]:
    try:
        places = tuple(float(part) for part in text.split(","))
    except ValueError:
        places = (math.nan,)
    if not all(map(math.isfinite, places)) or len(places) > 20:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no places; give up to 20 numbers with commas between, such as 0.5,1,2"
        )
    return places
