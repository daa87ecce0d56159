"""Measure a published classifier on the test images, by the very graphs that are served.

python -m training evaluate cifar-improved [--images FOLDER_OR_ZIP]

Published versions never change: the figures go into a new version with the same graphs.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import ArtifactError
from contract.manifest import TrainedClassifierManifest
from contract.remote import on_this_machine, open_draft
from contract.store import Artifact
from training import naming
from training.data.images import ImageData
from training.errors import JobError
from training.fit.evaluate import reliability, score
from training.progress import told
from training.publish import classifier_report, report
from training.publish.classifier_report import ComparedClassifier
from training.publish.measure import confusion, difference, run_classifier
from training.publish.published import classifier, history, images

BASELINE = "cifar-baseline"
PREDICTIONS = "predictions.npz"


def add_model_and_images(parser: argparse.ArgumentParser) -> None:
    """A published classifier, and the images that it was trained with."""
    parser.add_argument("model", help="such as cifar-improved")
    parser.add_argument(
        "--images",
        type=Path,
        default=None,
        metavar="FOLDER_OR_ZIP",
        help="what it was trained with; by default CIFAR-10 is downloaded",
    )
    parser.add_argument(
        "--zip-encoding", default=None, metavar="NAME", help="as it was given for training"
    )


def command(model: str, arguments: argparse.Namespace) -> str:
    """This job's command line for ``model``, after a job with the same images and artifacts."""
    return naming.command(
        "evaluate",
        model,
        python=naming.this_python(),
        images=arguments.images,
        zip_encoding=arguments.zip_encoding,
        artifacts=arguments.artifacts,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training evaluate``."""
    add_model_and_images(parser)
    parser.add_argument(
        "--against", default=BASELINE, metavar="MODEL", help="an evaluated model to compare with"
    )


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and publish. Raises JobError or ArtifactError; then nothing is published."""
    with on_this_machine(arguments.artifacts, arguments.model, arguments.against) as root:
        _evaluate(arguments, root)


def _evaluate(arguments: argparse.Namespace, root: Path) -> None:
    """Evaluate what lies in ``root``, publish where the options say."""
    artifact, manifest = classifier(root, arguments.model)
    data = images(manifest, arguments.images, arguments.zip_encoding)
    for line in data.warnings():
        print(line)
    metrics, predictions = _measure(artifact, manifest, data)
    other = _other(arguments, root, manifest, data, predictions)
    if other is not None:
        metrics["compared"] = {"model": other.manifest.model} | dict(other.difference)
    with open_draft(arguments.artifacts, arguments.model) as draft:
        for name in manifest.files:
            shutil.copyfile(artifact.folder / name, draft.folder / name)
        manifest = manifest.model_copy(
            update={
                "created_utc": datetime.now(UTC),
                "metrics": classifier_report.headline(metrics),
            }
        )
        report.write_metrics(draft.folder, metrics)
        np.savez_compressed(draft.folder / PREDICTIONS, test=predictions)
        classifier_report.write(draft.folder, manifest, metrics, history(artifact), other)
        draft.publish(manifest)
    found = metrics["scores"]["test"]
    top5 = ""
    if classifier_report.shows_top5(data.classes):
        chance = classifier_report.chance_of_top5(data.classes)
        top5 = f", top-5 {found['top5']:.2%} (by chance {chance})"
    print(
        f"{len(data.test):,} test images: top-1 {found['top1']:.2%}{top5}, cross-entropy "
        f"{found['loss']:.4f}; int8 top-1 {metrics['int8']['test_top1']:.2%}, the same prediction "
        f"for {metrics['int8']['test_agreement']:.2%}"
    )
    if other is not None:
        print(f"{other.difference['points']:+.2f} points against {other.manifest.model}")
    before = f"{arguments.artifacts}/{arguments.model}/{artifact.manifest.version}"
    print(f"published {draft.published}; {before} may be removed")


def _measure(
    artifact: Artifact, manifest: TrainedClassifierManifest, data: ImageData
) -> tuple[dict[str, Any], np.ndarray]:
    """All metrics, those of training included, and the predicted test labels."""
    metrics: dict[str, Any] = json.loads(artifact.read("metrics.json"))
    labels = data.test.labels.numpy()
    function = manifest.functions["probabilities"]
    variants = [graph for graph in function.variants if graph.precision == "int8"]
    images = len(labels) * (1 + len(variants))
    with told("measuring the graphs on the test images", "images", images) as advance:
        found = run_classifier(artifact.folder / function.graph.file, data.test, advance)
        predicted = found.argmax(1)
        for graph in variants:
            small = run_classifier(artifact.folder / graph.file, data.test, advance).argmax(1)
            metrics["int8"]["test_top1"] = float((small == labels).mean())
            metrics["int8"]["test_agreement"] = float((small == predicted).mean())
    # softmax(T · log p) are the probabilities without the temperature.
    warm = found.astype(np.float64).clip(1e-30) ** metrics["temperature"]
    before = warm / warm.sum(1, keepdims=True)
    metrics["scores"]["test"] = asdict(score(found, labels))
    metrics["before_temperature"]["test"] = asdict(score(before, labels))
    metrics["confusion"] = confusion(predicted, labels, len(manifest.classes)).tolist()
    metrics["reliability"] = {
        "before": reliability(before, labels),
        "after": reliability(found, labels),
    }
    return metrics, predicted.astype(np.int16)


def _other(
    arguments: argparse.Namespace,
    root: Path,
    manifest: TrainedClassifierManifest,
    data: ImageData,
    predictions: np.ndarray,
) -> ComparedClassifier | None:
    """The model to compare with, if there is one that was evaluated on the same images."""
    if arguments.against == arguments.model:
        return None
    try:
        artifact, theirs = classifier(root, arguments.against)
    except (ArtifactError, JobError):
        return None
    if theirs.data.sha256 != manifest.data.sha256 or PREDICTIONS not in theirs.files:
        return None
    with np.load(artifact.folder / PREDICTIONS, allow_pickle=False) as stored:
        their_predictions = stored["test"]
    labels = data.test.labels.numpy()
    return ComparedClassifier(
        theirs, history(artifact), difference(predictions, their_predictions, labels)
    )
