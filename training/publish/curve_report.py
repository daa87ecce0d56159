"""report.md and figures of a curve: data, fit, tangents, derivatives, and how they were checked."""

from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from contract.intervals import REACH, quantile
from contract.manifest import CurveManifest
from training.data import stand_in
from training.data.points import Points
from training.fit.fitted import Fitted, r_squared
from training.fit.mlp import RESTARTS, Candidate, MLPFit
from training.fit.polynomial import REPRODUCES, PolynomialFit
from training.fit.process import ProcessFit
from training.publish import report
from training.publish.derivatives import curve_derivative
from training.publish.slopes import Slope

LEVEL = 0.95  # of the bands and intervals
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Study:
    """A fit, the points it was made for, and f′ where it was asked for.

    ``known``: the points are the stand-in, whose truth is known. ``limit``: of the mean squared
    error, or None.
    """

    fit: Fitted
    points: Points
    slopes: list[Slope]
    known: bool
    limit: float | None


def draw(folder: Path, network: nn.Module, deviation: nn.Module | None, study: Study) -> None:
    """fit.png, derivative.png, and how the fit was chosen: training.png, degree.png or
    hyperparameters.png.

    ``network`` and ``deviation`` are the fit's, frozen.
    """
    fit, points, slopes, known = study.fit, study.points, study.slopes, study.known
    low, high = float(points.x.min()), float(points.x.max())
    margin = REACH * (high - low)
    x = np.linspace(low - margin, high + margin, 600)
    at = torch.from_numpy(x)
    reach = quantile(LEVEL, fit.degrees_of_freedom)

    def band(axes: Axes, values: np.ndarray, order: int) -> None:
        if deviation is not None:
            half = reach * deviation(at, order).numpy()
            axes.fill_between(
                x, values - half, values + half,
                color=report.MODEL_COLOUR, alpha=0.18, lw=0, label=f"{LEVEL:.0%} band",
            )  # fmt: skip

    values = network(at).numpy()
    with report.figure(folder / "fit.png") as (axes,):
        band(axes, values, 0)
        if known:
            axes.plot(x, stand_in.truth(x), "--", color=report.TRUTH_COLOUR, label="truth")
        axes.plot(x, values, color=report.MODEL_COLOUR, label="fit")
        size = 5.5 if len(points.x) <= 200 else 2.0
        axes.plot(points.x, points.y, "o", ms=size, color=report.DATA_COLOUR, label="data")
        _tangents(axes, slopes, (high - low) / 11)
        axes.set(xlabel="x", ylabel="y", title=f"Data, fit and tangents ({_name(fit)})")
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(*_room(points.y))
        _mark_data_range(axes, low, high)
        axes.legend(loc="best")
    with report.figure(folder / "derivative.png") as (axes,):
        first = curve_derivative(network, 1)(at).numpy()
        band(axes, first, 1)
        if known:
            axes.plot(
                x, stand_in.truth_derivative(x), "--", color=report.TRUTH_COLOUR, label="truth"
            )
        axes.plot(x, first, color=report.MODEL_COLOUR, label="f′")
        for slope, colour in zip(slopes, cycle(report.ACCENTS), strict=False):
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
    elif isinstance(fit, MLPFit):
        _draw_training(folder / "training.png", fit)
    elif isinstance(fit, ProcessFit):
        _draw_nodes(folder / "hyperparameters.png", fit)


def text(manifest: CurveManifest, study: Study) -> str:
    """The whole of report.md."""
    fit, points, slopes, known = study.fit, study.points, study.slopes, study.known
    chosen = ""
    if isinstance(fit, PolynomialFit):
        chosen = _polynomial_text(fit)
    elif isinstance(fit, MLPFit):
        chosen = _mlp_text(fit, len(points.x))
    elif isinstance(fit, ProcessFit):
        chosen = _process_text(fit, len(points.x))
    source = (
        "The homework's file was not supplied; this is its stand-in, drawn from "
        rf"$y = 1.5 \sin(1.6 x) + 0.3 x$ with normal noise of standard deviation "
        f"{stand_in.NOISE:g}. "
        f"No fit should therefore get far below an MSE of {stand_in.NOISE**2:g}: "
        "that much is noise. Your own file takes its place with "
        "`python -m training curve --data FILE.csv --name curve --replace`."
        if known
        else ""
    )
    required = "" if study.limit is None else f" (required: under {study.limit:g})"
    return report.document(
        f"# {manifest.model}: {_name(fit)}",
        f"{len(points.x)} points from {report.code(points.name)}, x from {points.x.min():g} to "
        f"{points.x.max():g}. Mean squared error on them: **{fit.mse:.5g}**{required}; "
        f"R² {r_squared(fit.mse, points.y):.4f}.",
        *(f"How the file was read: {report.literal(note, 500)}." for note in points.notes),
        source,
        "![Data, fit and tangents](fit.png)",
        "## Derivative where it was asked for",
        _slopes_table(slopes, fit.degrees_of_freedom),
        r"Central differences are $(f(x + h) - f(x - h)) / 2h$ with $h = \epsilon^{1/3}$ of the "
        "data's half range. "
        "Disagreement is the largest difference of the other means from autograd."
        + (
            r" The truth is $2.4 \cos(1.6 x) + 0.3$; the fit differs from it because it saw "
            "noise, autograd differs from the fit by rounding alone."
            if known
            else ""
        ),
        "![First derivative](derivative.png)",
        _band_text(fit),
        chosen,
        report.parameters_section(manifest.parameters),
        report.functions_section(manifest.functions),
        report.provenance_section(manifest.data, manifest.training),
    )


def _band_text(fit: Fitted) -> str:
    if fit.deviation is None:
        return "There is no band: so few points can't tell how sure the fit is."
    means = {
        PolynomialFit: "the covariance of the coefficients; a degree that was not given is unknown",
        MLPFit: "Laplace's approximation of the network's weights",
        ProcessFit: "the process given the points, averaged over its hyperparameters",
    }[type(fit)]
    return (
        f"The band holds the curve, and its slope, with a probability of {LEVEL:.0%} at each x; it "
        f"isn't for new points. It comes from {means}. It is pointwise: the whole curve lies in it "
        "less often. Outside the data it takes for granted that the curve goes on as the model "
        f"does, and further out than {REACH:.0%} of their width there is none. "
        "`docs/uncertainty.md` says how often it was right."
    )


def _slopes_table(slopes: list[Slope], freedom: float | None) -> str:
    interval = any(slope.standard_error is not None for slope in slopes)

    def row(slope: Slope) -> list[object]:
        shown: list[object] = [
            f"{slope.x:g}" + (" (extrapolated)" if slope.extrapolated else ""),
            f"{slope.value:.6f}",
            f"{slope.autograd:.10f}",
            "—" if slope.analytic is None else f"{slope.analytic:.10f}",
            f"{slope.central:.10f}",
            f"{slope.disagreement:.1e}",
        ]
        if interval and slope.standard_error is None:
            shown.append("none so far outside")
        elif slope.standard_error is not None:
            half = quantile(LEVEL, freedom) * slope.standard_error
            shown.append(f"{slope.autograd - half:.4f} to {slope.autograd + half:.4f}")
        if slope.truth is not None:
            shown.append(f"{slope.truth:.4f}")
        return shown

    headers = ["x", "f(x)", "f′ by autograd", "analytic", "central differences", "disagreement"]
    if interval:
        headers.append(f"{LEVEL:.0%} interval of f′")
    if slopes[0].truth is not None:
        headers.append("truth")
    return report.table(headers, map(row, slopes))


def _polynomial_text(fit: PolynomialFit) -> str:
    powers = list(range(fit.degree, -1, -1))
    in_x = (
        r"$y = \sum_k w_k x^k$. Evaluated from the $w_k$ alone, the polynomial differs from the "
        f"fit by at most {fit.off:.1e} of its range at the data."
        if fit.coefficients
        else "Coefficients in x are not given: written with all their digits they would still be "
        f"off by {fit.off:.1e} of the fit's range at the data ({REPRODUCES:g} is allowed), because "
        "powers of such x cancel."
    )
    centre, half = fit.scaling
    columns: list[tuple[object, ...]] = [
        (f"$c_{{{power}}}$", repr(value))
        for power, value in zip(powers, fit.scaled_coefficients, strict=True)
    ]
    headers: tuple[str, ...] = ("in t", "value")
    if fit.coefficients:
        headers = (*headers, "in x", "value")
        columns = [
            (*row, f"$w_{{{power}}}$", repr(value))
            for row, power, value in zip(columns, powers, fit.coefficients, strict=True)
        ]
    return report.document(
        "## Coefficients",
        rf"$y = \sum_k c_k t^k$ with $t = (x {'+' if centre < 0 else '-'} {_in_latex(abs(centre))})"
        rf" / {_in_latex(half)}$. {in_x}",
        report.table(headers, columns),
        "## Degree",
        "Least squares in the Chebyshev basis over the data's range. For each degree the error on "
        "the data, and the mean squared error at each point of a fit to all the others. The lowest "
        "degree within one standard error of the smallest of these is taken, unless `--degree` "
        "says another.",
        report.table(
            ("degree", "MSE", "leave-one-out MSE", ""),
            [
                (
                    str(error.degree),
                    f"{error.mse:.4g}",
                    f"{error.leave_one_out:.4g}",
                    "chosen" if error.degree == fit.degree else "",
                )
                for error in fit.errors
            ],
        ),
        "![Error by degree](degree.png)",
    )


def _in_latex(value: float) -> str:
    """All digits of a number, its exponent as a power of ten."""
    digits, _, exponent = repr(value).partition("e")
    return rf"({digits} \cdot 10^{{{int(exponent)}}})" if exponent else digits


def _mlp_text(fit: MLPFit, count: int) -> str:
    sizes = (1, *fit.chosen.hidden, 1)
    layers = ", tanh, ".join(f"{inputs}→{outputs}" for inputs, outputs in pairwise(sizes))
    compared = "" if fit.seen == count else f" on {fit.seen:,} of the {count:,} points"
    edge = (
        " The error was least at an end of the range of weight decays: another might do better."
        if fit.at_edge
        else ""
    )
    best = [
        min((each for each in fit.candidates if each.hidden == hidden), key=_held_out)
        for hidden in dict.fromkeys(each.hidden for each in fit.candidates)
    ]
    return report.document(
        "## Training",
        f"Dense {layers}, in float64; Levenberg and Marquardt's method on all points at once, "
        "minimising squared error (in units of the data's half range) plus weight decay. Layers "
        f"and weight decay were chosen{compared} by the leave-one-out error, to first order, of "
        "fits "
        f"from heavy weight decay to light: the median of {RESTARTS} first weights. "
        "The best of each size:" + edge,
        report.table(
            ("hidden layers", "weight decay", "leave-one-out MSE", ""),
            [
                (
                    ", ".join(map(str, candidate.hidden)),
                    f"{candidate.weight_decay:.2g}",
                    f"{candidate.held_out_mse:.4g}",
                    "chosen" if candidate == fit.chosen else "",
                )
                for candidate in best
            ],
        ),
        "![Training](training.png)",
    )


def _held_out(candidate: Candidate) -> float:
    return candidate.held_out_mse


def _process_text(fit: ProcessFit, count: int) -> str:
    merged = (
        ""
        if fit.kernels == count
        else f" The {count:,} points were averaged to {fit.kernels}, neighbours together, each "
        "counting for as many as went into it."
    )
    return report.document(
        "## Hyperparameters",
        "A straight line plus a process with the Matérn kernel of smoothness 7/2, plus noise. "
        "Amplitude and line are integrated out; length scale and noise are averaged over these, "
        f"weighted by their restricted likelihood on a grid.{merged}",
        report.table(
            ("length scale, in x", "standard deviation of the noise, in y", "weight"),
            [(node.length, node.noise, node.weight) for node in fit.nodes],
        ),
        "![Hyperparameters](hyperparameters.png)",
    )


def _draw_nodes(path: Path, fit: ProcessFit) -> None:
    with report.figure(path) as (axes,):
        axes.scatter(
            [node.length for node in fit.nodes],
            [node.noise for node in fit.nodes],
            [1200 * node.weight for node in fit.nodes],
            color=report.MODEL_COLOUR,
            alpha=0.6,
        )
        axes.set(
            xscale="log",
            xlabel="length scale, in x",
            ylabel="standard deviation of the noise, in y",
            title="What was averaged; the area is the weight",
        )
        axes.margins(0.2)


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
    with report.figure(path) as (axes,):
        sizes = list(dict.fromkeys(each.hidden for each in fit.candidates))
        for hidden, line in zip(sizes, cycle(LINES), strict=False):
            tried = [each for each in fit.candidates if each.hidden == hidden]
            axes.loglog(
                [each.weight_decay for each in tried],
                [max(each.held_out_mse, 1e-300) for each in tried],
                f"o{line}",
                ms=3.5,
                color=report.MODEL_COLOUR if hidden == fit.chosen.hidden else report.DATA_COLOUR,
                label=f"hidden layers {', '.join(map(str, hidden))}",
            )
        axes.axvline(fit.chosen.weight_decay, color=report.ACCENTS[0], ls=":", label="chosen")
        axes.set(xlabel="weight decay", ylabel="leave-one-out error", title="Error by weight decay")
        axes.legend(loc="best")


def _tangents(axes: Axes, slopes: list[Slope], reach: float) -> None:
    """A tangent for each place inside the data, with its slope in the legend."""
    for slope, colour in zip(slopes, cycle(report.ACCENTS), strict=False):
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


def _name(fit: Fitted) -> str:
    if isinstance(fit, PolynomialFit):
        return f"polynomial of degree {fit.degree}"
    if isinstance(fit, MLPFit):
        layers = len(fit.chosen.hidden)
        return f"a network of {layers} tanh layer{'s' if layers > 1 else ''}"
    return "Gaussian process"
