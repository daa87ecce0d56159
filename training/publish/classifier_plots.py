"""The plots of an image classifier's report."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.publish import report

_LONGEST_NAME = 24
_NUMBERED_CLASSES = 20  # beyond that a confusion matrix has no room for numbers


def draw_curves(
    path: Path, runs: Mapping[str, list[dict[str, float]]], *, top5: bool = True
) -> None:
    """Loss and validation accuracy by epoch, of each run's history by model name."""
    colours = (report.MODEL_COLOUR, report.DATA_COLOUR, *report.ACCENTS)
    with report.figure(path, columns=2, size=(10, 4)) as (loss, accuracy):
        for (name, rows), colour in zip(reversed(list(runs.items())), colours, strict=False):
            epochs = [row["epoch"] for row in rows]
            loss.plot(
                epochs, [r["train_loss"] for r in rows], ":", color=colour, label=f"{name}, train"
            )
            loss.plot(
                epochs,
                [row["validation_loss"] for row in rows],
                color=colour,
                label=f"{name}, validation",
            )
            accuracy.plot(
                epochs,
                [100 * row["validation_top1"] for row in rows],
                color=colour,
                label=f"{name}, top-1",
            )
            trained = [100 * row.get("train_top1", math.nan) for row in rows]
            if not all(map(math.isnan, trained)):
                accuracy.plot(
                    epochs, trained, ":", color=colour, label=f"{name}, top-1 in training"
                )
            if not top5:
                continue
            accuracy.plot(
                epochs,
                [100 * row["validation_top5"] for row in rows],
                "--",
                color=colour,
                alpha=0.5,
                label=f"{name}, top-5",
            )
        loss.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None))
        accuracy.set(xlabel="epoch", ylabel="accuracy, validation unless named (%)")
        for axes in (loss, accuracy):  # there is no epoch 1.2
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        loss.legend(fontsize=9)
        accuracy.legend(fontsize=9)


def draw_confusion(path: Path, classes: tuple[str, ...], counts: NDArray[Any]) -> None:
    """Counts [true, predicted], coloured by their share of the true class."""
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    with report.figure(path, size=(7.2, 6.4)) as (axes,):
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set(xlabel="predicted", ylabel="true")
        if len(classes) > _NUMBERED_CLASSES:
            return
        names = [_tick(number, name) for number, name in enumerate(classes, 1)]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), names)
        for row in range(len(classes)):
            for column in range(len(classes)):
                _write_count(axes, row, column, int(counts[row, column]), shares[row, column])


def _tick(number: int, name: str) -> str:
    """A class's name as it can be drawn: short, in one line, without formulas.

    Its number, as in the report's table, where the font lacks a letter.
    """
    name = " ".join(name.split())
    font = get_font(findfont("DejaVu Sans"))
    if any(font.get_char_index(ord(letter)) == 0 for letter in name):
        return f"no. {number}"
    name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return name.replace("$", r"\$")


def _write_count(axes: Axes, row: int, column: int, count: int, share: float) -> None:
    if count:
        colour = "white" if share > 0.3 else "#333333"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=colour)


def draw_reliability(path: Path, bins: Mapping[str, list[dict[str, float]]]) -> None:
    """Accuracy against confidence, before and after the temperature."""
    with report.figure(path, size=(5.6, 4.8)) as (axes,):
        axes.plot([0, 1], [0, 1], color=report.TRUTH_COLOUR, linewidth=1, label="as sure as right")
        for name, colour in (("before", report.DATA_COLOUR), ("after", report.MODEL_COLOUR)):
            axes.plot(
                [entry["confidence"] for entry in bins[name]],
                [entry["accuracy"] for entry in bins[name]],
                "o-",
                color=colour,
                markersize=4,
                label=f"{name} temperature scaling",
            )
        axes.set(xlabel="confidence (largest probability)", ylabel="accuracy, test images")
        axes.legend()
