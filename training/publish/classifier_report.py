"""The report of an image classifier: figures, tables, plots, and what they do not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.manifest import TrainedClassifierManifest
from contract.signatures import FAMILIAR
from training import naming
from training.data.images import DOWNLOADED
from training.publish import classifier_plots, report, saliency_report
from training.publish.classifier import LEAST_TO_CALIBRATE
from training.publish.studies import studies_section

Metrics = Mapping[str, Any]
_RESIZED = {
    "crop": "is cut to its central square, without what lies outside,",
    "pad": "gets grey bars that make it a square",
    "squash": "is squashed to a square",
}
MOST_CLASSES = 100  # in a table: a page of more is too long to be laid out
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ComparedClassifier:
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
    other: ComparedClassifier | None = None,
) -> None:
    """report.md and its plots, into ``folder``."""
    runs = {manifest.model: history}
    if other is not None:
        runs = {other.manifest.model: other.history} | runs
    classifier_plots.draw_curves(folder / "curves.png", runs, top5=shows_top5(manifest.classes))
    parts = [
        f"# {manifest.model}",
        _summary(manifest, metrics),
        _comparison(manifest, other),
        "## Learning curves",
        "![Loss and validation accuracy by epoch](curves.png)",
        "The training loss is the one that was minimised: with augmentation and label smoothing, "
        "if any. The validation loss is plain cross-entropy without them.",
        _mixed(manifest),
        _trained_share(manifest),
        _teachers(manifest),
    ]
    if "confusion" in metrics:
        classifier_plots.draw_confusion(
            folder / "confusion.png", manifest.classes, np.array(metrics["confusion"])
        )
        parts += [_per_class(manifest.classes, np.array(metrics["confusion"]))]
    if "reliability" in metrics and _is_calibrated(manifest):
        classifier_plots.draw_reliability(folder / "reliability.png", metrics["reliability"])
    parts += [
        _calibration(manifest, metrics),
        _int8(metrics),
        saliency_report.section(metrics.get("saliency"), folder),
        report.parameters_section(manifest.parameters),
        _other_parameters(other),
        studies_section(manifest),
        _cost(manifest, other),
        _limits(manifest),
        report.functions_section(manifest.functions),
        report.provenance_section(manifest.data, manifest.training),
    ]
    report.write_report(folder, report.document(*parts))


def shows_top5(classes: tuple[str, ...]) -> bool:
    """Is the top-5 worth a figure? Of five classes it is always 100 %."""
    return len(classes) > 5


def chance_of_top5(classes: tuple[str, ...]) -> str:
    """What guessing gives, in words: 50%, or 0.5% of a thousand classes."""
    share = 5 / len(classes)
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _summary(manifest: TrainedClassifierManifest, metrics: Metrics) -> str:
    scores = metrics["scores"]
    classes = manifest.classes
    columns = [("top-1", "top1", ".2%")]
    if shows_top5(classes):
        columns.append(("top-5", "top5", ".2%"))
    if all("balanced" in scores[split] for split in scores):
        columns.append(("mean over classes", "balanced", ".2%"))
    columns.append(("cross-entropy", "loss", ".4f"))
    rows = [
        (
            split,
            manifest.data.splits[split],
            *(f"{scores[split][key]:{form}}" for _, key, form in columns),
        )
        for split in _SPLITS
        if split in scores
    ]
    untested = (
        ""
        if "test" in scores
        else "The test images have not been looked at yet: "
        f"{report.code(_evaluate(manifest))} does that, once, at the end."
    )
    chance = f"Guessing would give a top-1 of {1 / len(classes):.1%}"
    if shows_top5(classes):
        chance += f" and a top-5 of {chance_of_top5(classes)}"
    return report.document(
        report.table(("split", "images", *(head for head, _, _ in columns)), rows),
        f"{chance}. Every figure is of a single view of each image, without augmentation, by "
        "the fp32 graph; those of the int8 variant, which serves where it agrees with it, are "
        "below.",
        _copies(manifest),
        untested,
    )


def _evaluate(manifest: TrainedClassifierManifest) -> str:
    """The command. Where the images lie nobody wrote down: their name is taken for the path."""
    name = manifest.data.name
    return naming.command(
        "evaluate",
        manifest.model,
        images=None if name == DOWNLOADED else name,
        zip_encoding=manifest.training.config.get("zip_encoding"),
    )


def _copies(manifest: TrainedClassifierManifest) -> str:
    """What was found of them when it was trained."""
    copies = manifest.training.config.get("copies")
    if not isinstance(copies, list) or not copies:
        return ""
    return "\n".join(["Copies among the pictures:", "", *(f"- {line}" for line in copies)])


def _comparison(manifest: TrainedClassifierManifest, other: ComparedClassifier | None) -> str:
    if other is None:
        return ""
    theirs = other.manifest.metrics
    ours = manifest.metrics
    figures = [("top1", ".2%"), ("top5", ".2%"), ("loss", ".4f")]
    if not shows_top5(manifest.classes):
        del figures[1]

    def row(name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        cells = []
        for figure, form in figures:
            cells += [f"{metrics[figure][split]:{form}}" for split in _SPLITS]
        return name, *cells

    names = {"top1": "top-1", "top5": "top-5", "loss": "loss"}
    heads = [f"{names[figure]} {split}" for figure, _ in figures for split in _SPLITS]
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


def _mixed(manifest: TrainedClassifierManifest) -> str:
    share = manifest.training.config.get("cutmix", 0)
    if not share:
        return ""
    return (
        f"In {share:.0%} of the batches a rectangle of another image covers part of each. The "
        "top-1 in training takes the covered image's class alone for right, even where little of "
        "it is left to be seen: so it is far below that of whole images, and goes up and down."
    )


def _trained_share(manifest: TrainedClassifierManifest) -> str:
    share = manifest.training.config.get("trained_share", 1.0)
    if share == 1:
        return ""
    return (
        f"Only {share:.0%} of the images of an epoch are trained on, and make its training loss: "
        "those on which a small network, trained beside this one, has the largest loss. Images "
        "that it already gets right teach little, and an epoch takes that much less time."
    )


def _teachers(manifest: TrainedClassifierManifest) -> str:
    teachers: Any = manifest.training.config.get("teachers")
    if not teachers:
        return ""
    rows = [
        (
            f"`{each['network']}`",
            each["epochs"],
            f"{each['wall_seconds']:.0f} s",
            each["device"],
            f"{each['validation_top1']:.2%}",
        )
        for each in teachers
    ]
    copies = manifest.training.config.get("teacher_copies")
    return report.document(
        "It learnt from other networks, trained before it"
        + (", by the mean of their logits" if len(teachers) > 1 else "")
        + (f", which were asked about {copies} augmented copies of every image" if copies else "")
        + ". Their training comes on top of its own:",
        report.table(("teacher", "epochs", "training", "on", "validation top-1"), rows),
    )


def _per_class(classes: tuple[str, ...], confusion: NDArray[Any]) -> str:
    totals = confusion.sum(1)
    names = [report.literal(label) for label in classes]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    pairs = wrong + wrong.T
    worst = sorted(
        ((a, b) for b in range(len(classes)) for a in range(b)), key=lambda ab: -pairs[ab]
    )[:5]
    accuracy = confusion.diagonal() / totals.clip(1)
    shown, only = list(range(len(classes))), ""
    if len(classes) > MOST_CLASSES:
        shown = sorted(np.argsort(accuracy, kind="stable")[:MOST_CLASSES].tolist())
        only = (
            f"The table has the {MOST_CLASSES} classes of least accuracy; metrics.json has the "
            "counts of all, a row for each true class."
        )
    return report.document(
        "## By class, on the test images",
        "![Confusion matrix](confusion.png)",
        only,
        report.table(
            ("no.", "class", "images", "accuracy", "most often taken for"),
            [
                (
                    index + 1,
                    names[index],
                    int(totals[index]),
                    f"{accuracy[index]:.1%}",
                    names[int(wrong[index].argmax())] if wrong[index].any() else "—",
                )
                for index in shown
            ],
        ),
        _confused([f"{names[a]} and {names[b]} ({pairs[a, b]})" for a, b in worst if pairs[a, b]]),
    )


def _confused(pairs: list[str]) -> str:
    if not pairs:
        return "No test image was taken for another class."
    return f"Most confused pairs, both ways together: {', '.join(pairs)}."


def _is_calibrated(manifest: TrainedClassifierManifest) -> bool:
    return manifest.data.splits["validation"] >= LEAST_TO_CALIBRATE


def _calibration(manifest: TrainedClassifierManifest, metrics: Metrics) -> str:
    images = manifest.data.splits["validation"]
    figures = {
        split: (f"{scores['loss']:.4f}", f"{scores['ece']:.2%}")
        for split, scores in metrics["scores"].items()
    }
    heads = ("cross-entropy (NLL)", "ECE, 15 bins")
    if not _is_calibrated(manifest):
        return report.document(
            "## Calibration",
            f"Not done: {images} validation images are too few to tell how sure the network should "
            f"be; {LEAST_TO_CALIBRATE} are needed. Its probabilities may be far too high or low.",
            report.table(("split", *heads), [(split, *after) for split, after in figures.items()]),
        )
    rows = []
    for split, after in figures.items():
        before = metrics["before_temperature"].get(split)
        if before is not None:
            rows.append((split, "before", f"{before['loss']:.4f}", f"{before['ece']:.2%}"))
            rows.append((split, "after", *after))
    return report.document(
        "## Calibration",
        f"The logits are divided by the temperature T = {metrics['temperature']:.4f} inside the "
        f"graph. It was fitted on the {images:,} validation images to the smallest cross-entropy "
        "(arXiv 1706.04599); it changes no prediction, only how sure the network says it is.",
        report.table(("split", "temperature", *heads), rows),
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
        "Static quantisation of the same graph, calibrated on "
        f"{found.get('calibration_images', 512):.0f} training images; the first "
        "convolution stays in fp32. How much faster it is depends on the processor: most where it "
        "has instructions for int8 dot products (VNNI, AMX). Its accuracy is not that of fp32, "
        "because each value is rounded to one of 256 steps, which changes the answer for images "
        "that lie between two classes.",
        report.table(("what", "value"), rows),
    )


def _other_parameters(other: ComparedClassifier | None) -> str:
    if other is None:
        return ""
    text = report.parameters_section(other.manifest.parameters)
    return text.replace("## Parameters", f"## Parameters of {other.manifest.model}")


def _cost(manifest: TrainedClassifierManifest, other: ComparedClassifier | None) -> str:
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
    function = manifest.functions["probabilities"]
    side = function.inputs[0].shape[1]
    always = (
        f"- It knows {len(manifest.classes)} classes and always answers with one of them, "
        "whatever the picture shows."
    )
    if any(tensor.name == FAMILIAR for tensor in function.outputs):
        always += (
            f" `{FAMILIAR}` tells pictures of other kinds from these: it is the share of the "
            "validation images that are less familiar."
        )
    lines = [
        always,
        f"- A picture {_RESIZED[manifest.resize]} and becomes {side}×{side} pixels: "
        "what is small in it is not seen.",
    ]
    if _is_calibrated(manifest):
        lines.append(
            "- The probabilities are calibrated for pictures like those it was trained on, not for "
            "others."
        )
    if manifest.data.name.lower().startswith(("cifar-10", "cifar10")):
        lines.append(
            "- About 3 % of CIFAR-10's test images have a near-duplicate among its training "
            "images (Barz and Denzler, arXiv 1902.00423), which flatters every network a little."
        )
    return "## Limits\n\n" + "\n".join(lines)
