"""report.md and figures of a curve: data, fit, tangents, derivatives, and how they were checked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from contract.manifest import CurveManifest
from training.data import stand_in
from training.data.points import Points
from training.fit.curve import REPEATS, MLPFit, PolynomialFit
from training.publish import report
from training.publish.derivatives import derivative
from training.publish.slopes import Slope


@dataclass(frozen=True)
class Study:
    """A fit, the points it was made for, and f′ where it was asked for.

    ``known``: the points are the stand-in, whose truth is known.
    """

    fit: MLPFit | PolynomialFit
    points: Points
    slopes: list[Slope]
    known: bool


def draw(folder: Path, network: nn.Module, study: Study) -> None:
    """fit.png, derivative.png, and how the fit was chosen: training.png or degree.png.

    ``network`` is the fit's, frozen.
    """
    fit, points, slopes, known = study.fit, study.points, study.slopes, study.known
    low, high = float(points.x.min()), float(points.x.max())
    margin = 0.06 * (high - low)
    x = np.linspace(low - margin, high + margin, 600)
    at = torch.from_numpy(x)
    with report.figure(folder / "fit.png") as (axes,):
        if known:
            axes.plot(x, stand_in.truth(x), "--", color=report.TRUTH_COLOUR, label="truth")
        axes.plot(x, network(at).numpy(), color=report.MODEL_COLOUR, label="fit")
        axes.plot(points.x, points.y, "o", ms=5.5, color=report.DATA_COLOUR, label="data")
        _tangents(axes, slopes, (high - low) / 11)
        axes.set(xlabel="x", ylabel="y", title=f"Data, fit and tangents ({_name(fit)})")
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(*_room(points.y))
        _mark_data_range(axes, low, high)
        axes.legend(loc="best")
    with report.figure(folder / "derivative.png") as (axes,):
        first = derivative(network, 1)(at).numpy()
        if known:
            axes.plot(
                x, stand_in.truth_derivative(x), "--", color=report.TRUTH_COLOUR, label="truth"
            )
        axes.plot(x, first, color=report.MODEL_COLOUR, label="f′ by autograd")
        for slope, colour in zip(slopes, report.ACCENTS, strict=True):
            if not slope.extrapolated:
                axes.plot(slope.x, slope.autograd, "o", color=colour)
        axes.axhline(0, color="#b8bcc4", lw=1, zorder=0)
        inside = first[(x >= low) & (x <= high)]
        axes.set(xlabel="x", ylabel="f′(x)", title=f"First derivative ({_name(fit)})")
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(*_room(inside))
        _mark_data_range(axes, low, high)
        axes.legend(loc="best")
    if isinstance(fit, PolynomialFit):
        _draw_degrees(folder / "degree.png", fit)
    else:
        _draw_training(folder / "training.png", fit)


def text(manifest: CurveManifest, study: Study) -> str:
    """The whole of report.md."""
    fit, points, slopes, known = study.fit, study.points, study.slopes, study.known
    chosen = _polynomial_text(fit, points) if isinstance(fit, PolynomialFit) else _mlp_text(fit)
    source = (
        "The homework's file was not supplied; this is its stand-in, drawn from "
        f"y = 1.5·sin(1.6·x) + 0.3·x with normal noise of standard deviation {stand_in.NOISE:g}. "
        f"No fit should therefore get far below an MSE of {stand_in.NOISE**2:g}: "
        "that much is noise."
        if known
        else ""
    )
    return report.document(
        f"# {manifest.model}: {_name(fit)}",
        f"{len(points.x)} points from `{points.name}`, x from {points.x.min():g} to "
        f"{points.x.max():g}. Mean squared error on them: **{fit.mse:.5f}** (required: under 0.1).",
        source,
        "![Data, fit and tangents](fit.png)",
        "## Derivative where it was asked for",
        _slopes_table(slopes),
        "Central differences are (f(x+h) − f(x−h)) / 2h with h = ε^(1/3) of the data's half range. "
        "Disagreement is the largest difference of the other means from autograd."
        + (
            " The truth is 2.4·cos(1.6·x) + 0.3; the fit differs from it because it saw "
            "noise, autograd differs from the fit by rounding alone."
            if known
            else ""
        ),
        "![First derivative](derivative.png)",
        chosen,
        report.parameters_section(manifest.parameters),
        report.functions_section(manifest.functions),
        report.provenance_section(manifest.data, manifest.training),
    )


def _slopes_table(slopes: list[Slope]) -> str:
    def row(slope: Slope) -> list[object]:
        shown: list[object] = [
            f"{slope.x:g}" + (" (extrapolated)" if slope.extrapolated else ""),
            f"{slope.value:.6f}",
            f"{slope.autograd:.10f}",
            "—" if slope.analytic is None else f"{slope.analytic:.10f}",
            f"{slope.central:.10f}",
            f"{slope.disagreement:.1e}",
        ]
        if slope.truth is not None:
            shown.append(f"{slope.truth:.4f}")
        return shown

    headers = ["x", "f(x)", "f′ by autograd", "analytic", "central differences", "disagreement"]
    if slopes[0].truth is not None:
        headers.append("truth")
    return report.table(headers, map(row, slopes))


def _polynomial_text(fit: PolynomialFit, points: Points) -> str:
    powers = range(fit.degree, -1, -1)
    in_x = np.polyval(fit.coefficients, points.x)
    with torch.no_grad():
        scaled = fit.network(torch.from_numpy(points.x)).numpy()
    off = float(np.abs(in_x - scaled).max())
    return report.document(
        "## Coefficients",
        "y = Σ w_k·x^k. Evaluated from these numbers alone, the polynomial differs from the fit by "
        f"at most {off:.1e} at the data.",
        report.table(
            ("coefficient", "value"),
            [
                (f"w_{power}", repr(value))
                for power, value in zip(powers, fit.coefficients, strict=True)
            ],
        ),
        "## Degree",
        "Least squares in the Chebyshev basis over the data's range. For each degree the error on "
        "the data, and the mean squared error at each point of a fit to all the others; the "
        "smallest of these decides, unless `--degree` does.",
        report.table(
            ("degree", "MSE", "leave-one-out MSE", ""),
            [
                (
                    str(error.degree),
                    f"{error.mse:.5f}",
                    f"{error.leave_one_out:.5f}",
                    "chosen" if error.degree == fit.degree else "",
                )
                for error in fit.errors
            ],
        ),
        "![Error by degree](degree.png)",
    )


def _mlp_text(fit: MLPFit) -> str:
    width = fit.chosen.width
    return report.document(
        "## Training",
        f"Dense 1→{width}, tanh, {width}→{width}, tanh, {width}→1, in float64; L-BFGS with a "
        "strong Wolfe line search on all points at once, minimising squared error (in units of the "
        "data's half range) plus weight decay. Width and weight decay were chosen by five-fold "
        f"cross-validation, repeated {REPEATS} times with other folds and first weights:",
        report.table(
            ("width", "weight decay", "held-out MSE", ""),
            [
                (
                    str(candidate.width),
                    f"{candidate.weight_decay:g}",
                    f"{candidate.held_out_mse:.5f}",
                    "chosen" if candidate == fit.chosen else "",
                )
                for candidate in fit.candidates
            ],
        ),
        "![Training](training.png)",
    )


def _draw_degrees(path: Path, fit: PolynomialFit) -> None:
    degrees = [error.degree for error in fit.errors]
    with report.figure(path) as (axes,):
        axes.semilogy(
            degrees,
            [error.mse for error in fit.errors],
            "o-",
            color=report.DATA_COLOUR,
            label="on the data",
        )
        axes.semilogy(
            degrees,
            [error.leave_one_out for error in fit.errors],
            "o-",
            color=report.MODEL_COLOUR,
            label="leave-one-out",
        )
        axes.axvline(fit.degree, color=report.ACCENTS[0], ls=":", label=f"degree {fit.degree}")
        axes.set(xlabel="degree", ylabel="mean squared error", title="Error by degree")
        axes.set_xticks(degrees)
        axes.legend(loc="best")


def _draw_training(path: Path, fit: MLPFit) -> None:
    rounds = [entry.number for entry in fit.history]
    with report.figure(path) as (axes,):
        axes.semilogy(
            rounds,
            [entry.mse for entry in fit.history],
            "o-",
            color=report.MODEL_COLOUR,
            label="mean squared error",
        )
        axes.semilogy(
            rounds,
            [entry.objective for entry in fit.history],
            "o-",
            color=report.DATA_COLOUR,
            label="objective, with weight decay",
        )
        axes.set(xlabel="round of L-BFGS", title="Training")
        axes.set_xticks(rounds)
        axes.legend(loc="best")


def _tangents(axes: Axes, slopes: list[Slope], reach: float) -> None:
    """A tangent for each place inside the data, with its slope in the legend."""
    for slope, colour in zip(slopes, report.ACCENTS, strict=True):
        if slope.extrapolated:
            continue
        ends = np.array([slope.x - reach, slope.x + reach])
        axes.plot(
            ends,
            slope.value + slope.autograd * (ends - slope.x),
            color=colour,
            lw=2.4,
            label=f"f′({slope.x:g}) = {slope.autograd:.4f}",
        )
        axes.plot(slope.x, slope.value, "o", color=colour, ms=7, mec="white", zorder=4)


def _mark_data_range(axes: Axes, low: float, high: float) -> None:
    """Grey where a prediction would be extrapolated."""
    left, right = axes.get_xlim()
    for start, end in ((left, low), (high, right)):
        axes.axvspan(start, end, color="#f1f2f4", zorder=0, lw=0)


def _room(values: np.ndarray) -> tuple[float, float]:
    """Limits with a margin, so that a wild extrapolation doesn't flatten the picture."""
    low, high = float(values.min()), float(values.max())
    margin = 0.15 * (high - low) or 1.0
    return low - margin, high + margin


def _name(fit: MLPFit | PolynomialFit) -> str:
    if isinstance(fit, PolynomialFit):
        return f"polynomial of degree {fit.degree}"
    return "a network of two tanh layers"
