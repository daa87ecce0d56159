"""The report of an image classifier: figures, tables, plots, and what they do not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.manifest import TrainedClassifierManifest
from training.publish import classifier_plots, report
from training.publish.studies import studies_section

Metrics = Mapping[str, Any]
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Other:
    """Another classifier of the same data to compare with."""

    manifest: TrainedClassifierManifest
    history: list[dict[str, float]]
    difference: Mapping[str, float]
    """Test top-1 of this model less that of the other, with its interval, in points."""


def headline(metrics: Metrics) -> dict[str, Any]:
    """What goes into the manifest."""
    scores = metrics["scores"]
    short: dict[str, Any] = {
        figure: {split: scores[split][figure] for split in _SPLITS if split in scores}
        for figure in ("top1", "top5", "loss", "ece")
    }
    return short | {
        key: metrics[key] for key in ("temperature", "int8", "compared") if key in metrics
    }


def write(
    folder: Path,
    manifest: TrainedClassifierManifest,
    metrics: Metrics,
    history: list[dict[str, float]],
    other: Other | None = None,
) -> None:
    """report.md and its plots, into ``folder``."""
    runs = {manifest.model: history}
    if other is not None:
        runs = {other.manifest.model: other.history} | runs
    classifier_plots.draw_curves(folder / "curves.png", runs)
    parts = [
        f"# {manifest.model}",
        _summary(manifest, metrics),
        _comparison(manifest, other),
        "## Learning curves",
        "![Loss and validation accuracy by epoch](curves.png)",
        "The training loss is the one that was minimised: with augmentation and label smoothing, "
        "if any. The validation loss is plain cross-entropy without them.",
        _trained_share(manifest),
    ]
    if "confusion" in metrics:
        classifier_plots.draw_confusion(
            folder / "confusion.png", manifest.classes, np.array(metrics["confusion"])
        )
        parts += [_per_class(manifest.classes, np.array(metrics["confusion"]))]
    if "reliability" in metrics:
        classifier_plots.draw_reliability(folder / "reliability.png", metrics["reliability"])
    parts += [
        _calibration(metrics),
        _int8(metrics),
        report.parameters_section(manifest.parameters),
        _other_parameters(other),
        studies_section(manifest),
        _cost(manifest, other),
        _limits(manifest),
        report.functions_section(manifest.functions),
        report.provenance_section(manifest.data, manifest.training),
    ]
    report.write_report(folder, report.document(*parts))


def _summary(manifest: TrainedClassifierManifest, metrics: Metrics) -> str:
    scores = metrics["scores"]
    chance = min(5, len(manifest.classes)) / len(manifest.classes)
    rows = [
        (
            split,
            manifest.data.splits[split],
            f"{scores[split]['top1']:.2%}",
            f"{scores[split]['top5']:.2%}",
            f"{scores[split]['loss']:.4f}",
        )
        for split in _SPLITS
        if split in scores
    ]
    untested = (
        ""
        if "test" in scores
        else "The test images have not been looked at yet: "
        f"`python -m training evaluate {manifest.model}` does that, once, at the end."
    )
    return report.document(
        report.table(("split", "images", "top-1", "top-5", "cross-entropy"), rows),
        f"Guessing would give a top-1 of {1 / len(manifest.classes):.1%} and a top-5 of "
        f"{chance:.0%}. Every figure is of a single view of each image, without augmentation, by "
        "the very graph that is served (fp32).",
        untested,
    )


def _comparison(manifest: TrainedClassifierManifest, other: Other | None) -> str:
    if other is None:
        return ""
    theirs = other.manifest.metrics
    ours = manifest.metrics

    def row(name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        cells = []
        for figure, form in (("top1", ".2%"), ("top5", ".2%"), ("loss", ".4f")):
            cells += [f"{metrics[figure][split]:{form}}" for split in _SPLITS]
        return name, *cells

    heads = [f"{figure} {split}" for figure in ("top-1", "top-5", "loss") for split in _SPLITS]
    found = other.difference
    return report.document(
        f"## Against {other.manifest.model}",
        report.table(
            ("model", *heads), [row(other.manifest.model, theirs), row(manifest.model, ours)]
        ),
        f"On the same test images {manifest.model} is **{found['points']:+.2f} points** of top-1 "
        f"from {other.manifest.model} (95 % interval of the paired difference: "
        f"{found['low']:+.2f} to {found['high']:+.2f}).",
    )


def _trained_share(manifest: TrainedClassifierManifest) -> str:
    share = manifest.training.config.get("trained_share", 1.0)
    if share == 1:
        return ""
    return (
        f"Only {share:.0%} of the images of an epoch are trained on, and make its training loss: "
        "those on which a small network, trained beside this one, has the largest loss. What is "
        "easily told would teach little more, and an epoch takes that much less time."
    )


def _per_class(classes: tuple[str, ...], confusion: NDArray[Any]) -> str:
    totals = confusion.sum(1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    pairs = wrong + wrong.T
    order = np.argsort(-np.triu(pairs), axis=None)[:5]
    worst = [divmod(int(index), len(classes)) for index in order]
    return report.document(
        "## By class, on the test images",
        "![Confusion matrix](confusion.png)",
        report.table(
            ("class", "images", "accuracy", "most often taken for"),
            [
                (
                    label,
                    int(totals[index]),
                    f"{confusion[index, index] / max(1, totals[index]):.1%}",
                    classes[int(wrong[index].argmax())] if wrong[index].any() else "—",
                )
                for index, label in enumerate(classes)
            ],
        ),
        "Most confused pairs, both ways together: "
        + ", ".join(
            f"{classes[a]} and {classes[b]} ({int(pairs[a, b])})" for a, b in worst if pairs[a, b]
        )
        + ".",
    )


def _calibration(metrics: Metrics) -> str:
    rows = []
    for split, after in metrics["scores"].items():
        before = metrics["before_temperature"].get(split)
        if before is not None:
            rows.append((split, "before", f"{before['loss']:.4f}", f"{before['ece']:.2%}"))
            rows.append((split, "after", f"{after['loss']:.4f}", f"{after['ece']:.2%}"))
    return report.document(
        "## Calibration",
        f"The logits are divided by the temperature T = {metrics['temperature']:.4f} inside the "
        "graph. It was fitted on the validation images to the smallest cross-entropy (arXiv "
        "1706.04599); it changes no prediction, only how sure the network says it is.",
        report.table(("split", "temperature", "cross-entropy (NLL)", "ECE, 15 bins"), rows),
        "![Reliability diagram](reliability.png)" if "reliability" in metrics else "",
    )


def _int8(metrics: Metrics) -> str:
    found = metrics["int8"]
    rows = [
        ("validation top-1, fp32", f"{metrics['scores']['validation']['top1']:.2%}"),
        ("validation top-1, int8", f"{found['validation_top1']:.2%}"),
        ("same prediction, validation", f"{found['validation_agreement']:.2%}"),
    ]
    if "test_top1" in found:
        rows += [
            ("test top-1, fp32", f"{metrics['scores']['test']['top1']:.2%}"),
            ("test top-1, int8", f"{found['test_top1']:.2%}"),
            ("same prediction, test", f"{found['test_agreement']:.2%}"),
        ]
    rows.append(("speed-up, one image, one thread, here", f"{found['speed_up']:.2f}×"))
    return report.document(
        "## The int8 variant",
        "Static quantisation of the same graph, calibrated on 512 training images; the first "
        "convolution stays in fp32. How much faster it is depends on the processor: most where it "
        "has instructions for int8 dot products (VNNI, AMX).",
        report.table(("what", "value"), rows),
    )


def _other_parameters(other: Other | None) -> str:
    if other is None:
        return ""
    text = report.parameters_section(other.manifest.parameters)
    return text.replace("## Parameters", f"## Parameters of {other.manifest.model}")


def _cost(manifest: TrainedClassifierManifest, other: Other | None) -> str:
    rows = [
        (
            entry.model,
            f"{entry.parameters.total:,}",
            f"{entry.parameters.multiply_adds / 1e6:.1f} M",
            entry.training.epochs,
            f"{entry.training.wall_seconds:.0f} s",
            entry.training.device,
        )
        for entry in (manifest, *([other.manifest] if other else []))
    ]
    heads = ("model", "parameters", "multiply-adds an image", "epochs", "training", "on")
    return report.document("## Cost", report.table(heads, rows))


def _limits(manifest: TrainedClassifierManifest) -> str:
    lines = [
        f"- It knows {len(manifest.classes)} classes and always answers with one of them, "
        "whatever the picture shows.",
        "- A picture is centre-cropped to a square and reduced to 32×32 pixels: what lies outside "
        "the crop, or is small in it, is not seen.",
        "- The probabilities are calibrated for pictures like those it was trained on, not for "
        "others.",
    ]
    if manifest.data.name.lower().startswith(("cifar-10", "cifar10")):
        lines.append(
            "- About 3 % of CIFAR-10's test images have a near-duplicate among its training "
            "images (Barz and Denzler, arXiv 1902.00423), which flatters every network a little."
        )
    return "## Limits\n\n" + "\n".join(lines)
