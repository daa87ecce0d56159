"""Write every file of a curve's artifact, and its manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.manifest import CurveManifest, Data, Function
from contract.store import Draft
from training.data import stand_in
from training.data.points import Points, read_points
from training.fit.fitted import Fitted, r_squared
from training.fit.mlp import MLPFit
from training.fit.polynomial import PolynomialFit
from training.fit.process import ProcessFit
from training.provenance import training_record
from training.publish import curve_report, report
from training.publish.agreement import Tolerances, measure_agreement
from training.publish.derivatives import curve_derivative, frozen
from training.publish.export import entry, export
from training.publish.parameters import summarise
from training.publish.slopes import Slope, measure_slopes

ROWS = 64  # for the parameter summary
POINTS_SHOWN = 1000  # a manifest is no place for a large data set
ORDERS = {"value": 0, "gradient": 1, "gradient2": 2, "gradient3": 3}
DEVIATIONS = {"value_sd": 0, "gradient_sd": 1, "gradient2_sd": 2}


@dataclass(frozen=True)
class Task:
    """A fit, and what else goes into its artifact.

    ``places``: where f′ was asked for. ``limit``: of the mean squared error, or None.
    """

    fit: Fitted
    points: Points
    data: Data
    places: tuple[float, ...]
    seed: int
    seconds: float
    limit: float | None


def write_artifact(draft: Draft, task: Task) -> tuple[CurveManifest, list[Slope]]:
    """Export, check, draw, write. Raises JobError if a check fails."""
    fit, points = task.fit, task.points
    domain = (float(points.x.min()), float(points.x.max()))
    network = frozen(fit.network)
    deviation = None if fit.deviation is None else frozen(fit.deviation)
    unit = (float(np.ptp(points.y)) or float(np.abs(points.y).max()) or 1.0) / (
        domain[1] - domain[0]
    )
    known = points.sha256 == read_points(stand_in.PATH).sha256
    slopes = measure_slopes(
        network,
        task.places,
        domain,
        unit=unit,
        truth=stand_in.truth_derivative if known else None,
        deviation=deviation,
    )
    functions, samples = export_derivatives(network, domain, unit, draft.folder)
    if deviation is not None and DEVIATIONS:
        more, arrays = export_deviations(deviation, domain, unit, draft.folder)
        functions |= more
        samples |= arrays
    polynomial = fit if isinstance(fit, PolynomialFit) else None
    manifest = CurveManifest(
        **draft.header,
        functions=functions,
        parameters=summarise(fit.network, torch.from_numpy(points.x[:ROWS])),
        data=task.data,
        training=training_record(_config(fit), seed=task.seed, epochs=0, wall_seconds=task.seconds),
        metrics=_metrics(fit, points, slopes),
        domain=domain,
        coefficients=polynomial.coefficients if polynomial else None,
        scaled_coefficients=polynomial.scaled_coefficients if polynomial else None,
        scaling=polynomial.scaling if polynomial else None,
        degrees_of_freedom=fit.degrees_of_freedom if deviation is not None else None,
    )
    study = curve_report.Study(fit, points, slopes, known, task.limit)
    curve_report.draw(draft.folder, network, deviation, study)
    report.write_report(draft.folder, curve_report.text(manifest, study))
    report.write_checkpoint(draft.folder, fit.network)
    report.write_samples(draft.folder, functions, samples)
    report.write_metrics(draft.folder, manifest.metrics)
    report.write_history(draft.folder, _history(fit))
    return manifest, slopes


def export_derivatives(
    network: nn.Module, domain: tuple[float, float], unit: float, folder: Path
) -> tuple[dict[str, Function], dict[str, NDArray[Any]]]:
    """``value``, ``gradient``, ``gradient2``, ``gradient3`` of a frozen network, as ONNX.

    The graph of a derivative gives y as well, most of which it computes on the way. Checked against
    PyTorch to 1e-9 relative, at 64 x that reach a fifth of the data's range beyond it; ``unit`` is
    a typical slope. Returns the manifest's entries and the arrays of ``samples.npz``.
    """
    functions = [
        curve_derivative(network, order) if order else network for order in ORDERS.values()
    ]
    parts = {name: (name, "y") if order else ("y",) for name, order in ORDERS.items()}
    usual = {name: _usual(unit, domain, order) for name, order in ORDERS.items()}
    names = ["y" if order == 0 else name for name, order in ORDERS.items()]

    def everything(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in functions)

    return _export(everything, names, parts, usual, domain, folder)


def export_deviations(
    deviation: nn.Module, domain: tuple[float, float], unit: float, folder: Path
) -> tuple[dict[str, Function], dict[str, NDArray[Any]]]:
    """``value_sd``, ``gradient_sd`` and ``gradient2_sd``, each with one output of its own name."""
    parts = {name: (name,) for name in DEVIATIONS}
    # Where the data say almost everything, a small difference of large numbers remains.
    usual = {name: 1e3 * _usual(unit, domain, order) for name, order in DEVIATIONS.items()}

    def everything(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(deviation(x, order) for order in DEVIATIONS.values())

    return _export(everything, list(DEVIATIONS), parts, usual, domain, folder)


def _usual(unit: float, domain: tuple[float, float], order: int) -> float:
    """A typical size of the derivative of that order."""
    return unit * (domain[1] - domain[0]) ** (1 - order)


def _export(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    names: Sequence[str],
    parts: Mapping[str, tuple[str, ...]],
    usual: Mapping[str, float],
    domain: tuple[float, float],
    folder: Path,
) -> tuple[dict[str, Function], dict[str, NDArray[Any]]]:
    """``function``, whose outputs are ``names``, as a graph for each of ``parts`` with its outputs.

    It is traced and exported once, which takes the time, and each graph is cut out of that one.
    """
    low, high = domain
    reach = 0.2 * (high - low)
    x = torch.linspace(low - reach, high + reach, 64, dtype=torch.float64)
    given = {"x": x.numpy()}
    outputs = dict(zip(names, (result.numpy() for result in function(x)), strict=True))
    whole = folder / "whole.onnx"
    export(function, [x], ["x"], names, whole)
    cutter = onnx.utils.Extractor(onnx.load(whole))
    whole.unlink()
    functions: dict[str, Function] = {}
    samples: dict[str, NDArray[Any]] = {}
    for name, wanted in parts.items():
        path = folder / f"{name}.onnx"
        onnx.save(cutter.extract_model(["x"], list(wanted)), path)
        expected = {output: outputs[output] for output in wanted}
        # Near a zero of the function a relative error means nothing: rounding of the terms that
        # cancel there remains. It is judged by the largest value, or what is usual for the order.
        largest = max(usual[name], *(float(np.abs(values).max()) for values in expected.values()))
        tolerances = Tolerances(absolute=1e-12 * largest, relative=1e-9)
        agreement = measure_agreement(path, given, expected, tolerances)
        functions[name] = entry(path, agreement)
        samples |= {f"{name}.{key}": value for key, value in (given | expected).items()}
    return functions, samples


def _metrics(fit: Fitted, points: Points, slopes: list[Slope]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if isinstance(fit, PolynomialFit):
        chosen = {
            "degree": fit.degree,
            "leave_one_out_mse": next(
                error.leave_one_out for error in fit.errors if error.degree == fit.degree
            ),
            "coefficients_in_x_off": fit.off,
        }
    elif isinstance(fit, MLPFit):
        chosen = {"held_out_mse": fit.chosen.held_out_mse}
    elif isinstance(fit, ProcessFit):
        chosen = {
            "length_scale": sum(node.weight * node.length for node in fit.nodes),
            "noise": sum(node.weight * node.noise for node in fit.nodes),
        }
    return {
        "mse": fit.mse,
        "r_squared": r_squared(fit.mse, points.y),
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


def _config(fit: Fitted) -> dict[str, Any]:
    if isinstance(fit, PolynomialFit):
        return {"degree": fit.degree, "degrees_tried": [error.degree for error in fit.errors]}
    if isinstance(fit, MLPFit):
        return {
            "optimizer": "Levenberg-Marquardt",
            "hidden": list(fit.chosen.hidden),
            "weight_decay": fit.chosen.weight_decay,
            "tried": [
                {"hidden": list(tried.hidden), "weight_decay": tried.weight_decay}
                for tried in fit.candidates
            ],
        }
    if isinstance(fit, ProcessFit):
        return {"kernel": "Matérn 7/2 and a straight line", "averaged": [*map(asdict, fit.nodes)]}
    raise TypeError(type(fit).__name__)


def _history(fit: Fitted) -> list[dict[str, object]]:
    """What was compared, a row each."""
    if isinstance(fit, MLPFit):
        return [
            {
                "hidden": "-".join(map(str, each.hidden)),
                "weight_decay": each.weight_decay,
                "leave_one_out_mse": each.held_out_mse,
            }
            for each in fit.candidates
        ]
    if isinstance(fit, PolynomialFit):
        return [
            {"degree": error.degree, "mse": error.mse, "leave_one_out_mse": error.leave_one_out}
            for error in fit.errors
        ]
    if isinstance(fit, ProcessFit):
        return [asdict(node) for node in fit.nodes]
    raise TypeError(type(fit).__name__)
