"""Fit y = f(x) to points with a network and with a polynomial; publish both with f′, f″ and f‴.

python -m training curve [--data points.csv] [--degree 6] [--seed 0]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.manifest import CurveManifest, Data, Function
from contract.store import Draft
from training import options
from training.data import stand_in
from training.data.points import Points, read_points
from training.errors import JobError
from training.fit.curve import MLPFit, PolynomialFit, fit_mlp, fit_polynomial
from training.provenance import training_record
from training.publish import curve_report, report
from training.publish.agreement import Tolerances
from training.publish.derivatives import derivative, frozen
from training.publish.export import export_function
from training.publish.parameters import summarise
from training.publish.slopes import Slope, measure_slopes

MSE_LIMIT = 0.1
ASKED = (3.0, 0.1, -0.5)  # where the homework wants the derivative
POINTS_SHOWN = 1000  # a manifest is no place for a large data set
ORDERS = {"value": 0, "gradient": 1, "gradient2": 2, "gradient3": 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training curve``."""
    parser.add_argument(
        "--data", type=Path, default=stand_in.PATH, metavar="CSV", help="points: columns x and y"
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
        help="of the polynomial; by default the one with the smallest leave-one-out error",
    )
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="for the network's first weights and the folds"
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit, check, publish. Raises JobError, and then nothing is published."""
    points = read_points(
        arguments.data, decimal=arguments.decimal, header=True if arguments.header else None
    )
    print(f"{points.name}: {len(points.x)} points, x from {points.x.min():g} to {points.x.max():g}")
    for note in points.notes:
        print(f"{points.name}: {note}")

    started = time.monotonic()
    polynomial = fit_polynomial(points.x, points.y, arguments.degree)
    polynomial_seconds = time.monotonic() - started
    print(f"polynomial: degree {polynomial.degree}, MSE {polynomial.mse:.5f}")
    _require_small(points, "polynomial", polynomial.mse)

    started = time.monotonic()
    mlp = fit_mlp(points.x, points.y, arguments.seed, print)
    mlp_seconds = time.monotonic() - started
    width, weight_decay = mlp.chosen.width, mlp.chosen.weight_decay
    print(f"network: width {width}, weight decay {weight_decay:g}, MSE {mlp.mse:.5f}")
    _require_small(points, "network", mlp.mse)

    # Both drafts are complete before either is published: an error in one leaves neither.
    with (
        Draft(arguments.artifacts, "curve-mlp") as first,
        Draft(arguments.artifacts, "curve-poly") as second,
    ):
        prepared = [
            (first, _prepare(first, mlp, points, arguments.seed, mlp_seconds)),
            (second, _prepare(second, polynomial, points, 0, polynomial_seconds)),
        ]
        for draft, manifest in prepared:
            print(f"published {draft.publish(manifest).folder}")


def export_derivatives(
    network: nn.Module, domain: tuple[float, float], unit: float, folder: Path
) -> tuple[dict[str, Function], dict[str, NDArray[Any]]]:
    """``value``, ``gradient``, ``gradient2``, ``gradient3`` of a frozen network, as ONNX.

    The graph of a derivative gives y as well, most of which it computes on the way. Checked against
    autograd to 1e-9 relative, at 64 x that reach a fifth of the data's range beyond it; ``unit`` is
    a typical slope. Returns the manifest's entries and the arrays of ``samples.npz``.
    """
    low, high = domain
    reach = 0.2 * (high - low)
    x = torch.linspace(low - reach, high + reach, 64, dtype=torch.float64)
    functions: dict[str, Function] = {}
    samples: dict[str, NDArray[Any]] = {}
    for name, order in ORDERS.items():
        function = _with_value(network, order)
        # Near a zero of the function a relative error means nothing: rounding of the terms that
        # cancel there remains. It is judged by the largest value, or what is usual for the order.
        usual = unit * (high - low) ** (1 - order)
        largest = max(usual, *(float(result.abs().max()) for result in function(x)))
        functions[name], arrays = export_function(
            function,
            {"x": x},
            (name, "y") if order else ("y",),
            folder,
            name,
            tolerances=Tolerances(absolute=1e-12 * largest, relative=1e-9),
            precision="fp64",
        )
        samples |= arrays
    return functions, samples


def _with_value(network: nn.Module, order: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A derivative and the value, or the value alone if ``order`` is 0.

    What the two compute alike is one in the graph that ONNX Runtime runs.
    """
    if order == 0:
        return lambda x: (network(x),)
    differentiated = derivative(network, order)
    return lambda x: (differentiated(x), network(x))


def _prepare(
    draft: Draft,
    fit: MLPFit | PolynomialFit,
    points: Points,
    seed: int,
    seconds: float,
) -> CurveManifest:
    """Write every file of one artifact into its draft; returns the manifest."""
    domain = (float(points.x.min()), float(points.x.max()))
    network = frozen(fit.network)
    unit = (float(np.ptp(points.y)) or float(np.abs(points.y).max()) or 1.0) / (
        domain[1] - domain[0]
    )
    known = points.sha256 == read_points(stand_in.PATH).sha256
    slopes = measure_slopes(
        network,
        ASKED,
        domain,
        unit=unit,
        truth=stand_in.truth_derivative if known else None,
    )
    _print_slopes(draft.model, slopes)
    functions, samples = export_derivatives(network, domain, unit, draft.folder)
    manifest = CurveManifest(
        model=draft.model,
        version=1,  # the draft gives it the next one
        created_utc=datetime.now(UTC),
        functions=functions,
        files={},
        parameters=summarise(fit.network, torch.from_numpy(points.x)),
        data=Data(
            name=points.name,
            sha256=points.sha256,
            rows=len(points.x),
            splits={"train": len(points.x)},
        ),
        training=training_record(
            _config(fit), seed=seed, epochs=_epochs(fit), wall_seconds=seconds
        ),
        metrics=_metrics(fit, points, slopes),
        domain=domain,
        coefficients=fit.coefficients if isinstance(fit, PolynomialFit) else None,
    )
    study = curve_report.Study(fit, points, slopes, known)
    curve_report.draw(draft.folder, network, study)
    report.write_report(draft.folder, curve_report.text(manifest, study))
    report.write_checkpoint(draft.folder, fit.network)
    report.write_samples(draft.folder, samples)
    report.write_metrics(draft.folder, manifest.metrics)
    report.write_history(draft.folder, _history(fit))
    return manifest


def _require_small(points: Points, model: str, mse: float) -> None:
    if not mse < MSE_LIMIT:
        raise JobError(
            f"{points.name}: the {model} reaches a mean squared error of {mse:.4g}, which is not "
            f"under {MSE_LIMIT}; nothing was published. Is y noisy, or in too small a unit?"
        )


def _print_slopes(model: str, slopes: list[Slope]) -> None:
    print(f"{model}:")
    for slope in slopes:
        analytic = "" if slope.analytic is None else f"analytic {slope.analytic:.10f}, "
        truth = "" if slope.truth is None else f", truth {slope.truth:.4f}"
        beyond = " (extrapolated)" if slope.extrapolated else ""
        print(
            f"  f′({slope.x:g}) = {slope.autograd:.10f} by autograd, {analytic}"
            f"central differences {slope.central:.10f}, "
            f"disagreement {slope.disagreement:.1e}{truth}{beyond}"
        )


def _metrics(fit: MLPFit | PolynomialFit, points: Points, slopes: list[Slope]) -> dict[str, Any]:
    chosen: dict[str, Any] = (
        {
            "degree": fit.degree,
            "leave_one_out_mse": next(
                error.leave_one_out for error in fit.errors if error.degree == fit.degree
            ),
        }
        if isinstance(fit, PolynomialFit)
        else {"held_out_mse": fit.chosen.held_out_mse}
    )
    return {
        "mse": fit.mse,
        **chosen,
        "derivatives": [asdict(slope) | {"disagreement": slope.disagreement} for slope in slopes],
        "points": _shown(points),
    }


def _shown(points: Points) -> list[list[float]]:
    """The points, for plots; of very many, a thousand spread over the file."""
    count = len(points.x)
    chosen = np.linspace(0, count - 1, min(count, POINTS_SHOWN)).round().astype(int)
    shown: list[list[float]] = np.stack([points.x, points.y], axis=1)[chosen].tolist()
    return shown


def _config(fit: MLPFit | PolynomialFit) -> dict[str, Any]:
    if isinstance(fit, PolynomialFit):
        return {"degree": fit.degree, "degrees_tried": [error.degree for error in fit.errors]}
    return {
        "optimizer": "L-BFGS",
        "hidden": [fit.chosen.width] * 2,
        "weight_decay": fit.chosen.weight_decay,
        "tried": [
            {"hidden": [tried.width] * 2, "weight_decay": tried.weight_decay}
            for tried in fit.candidates
        ],
    }


def _epochs(fit: MLPFit | PolynomialFit) -> int:
    """Rounds of L-BFGS; a polynomial is solved for, at once."""
    return len(fit.history) if isinstance(fit, MLPFit) else 0


def _history(fit: MLPFit | PolynomialFit) -> list[dict[str, object]]:
    if isinstance(fit, MLPFit):
        return [
            {"epoch": entry.number, "objective": entry.objective, "mse": entry.mse}
            for entry in fit.history
        ]
    return [
        {"degree": error.degree, "mse": error.mse, "leave_one_out_mse": error.leave_one_out}
        for error in fit.errors
    ]


def _degree(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 <= int(text) <= 30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a degree; give a number from 0 to 30")
    return int(text)
