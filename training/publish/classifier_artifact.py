"""A trained classifier as an artifact: functions, int8 variant, samples, figures, report."""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contract.agreement import LOOSEST
from contract.manifest import Data, Function, Graph, TrainedClassifierManifest, Training
from contract.signatures import FAMILIAR
from contract.store import Draft
from training.data.images import ImageData
from training.fit.device import Device
from training.fit.evaluate import score
from training.fit.loop import Fitted, predictor
from training.fit.normalise import at_once
from training.progress import told
from training.publish import classifier_report, report, saliency_checks
from training.publish.agreement import GraphRunner, Tolerances
from training.publish.classifier import (
    Probabilities,
    fit_temperature,
    natural_images,
    sample_images,
)
from training.publish.derivatives import frozen, saliency
from training.publish.export import export_function
from training.publish.familiarity import fit_familiarity
from training.publish.int8 import CALIBRATION_ROWS, quantise, tolerance
from training.publish.measure import run_classifier, single_image_seconds
from training.publish.parameters import summarise
from training.publish.saliency_checks import SaliencyFigures

SAMPLES = 8
# Every start of the service replays it, and a map costs as much as dozens of predictions.
SALIENCY_SAMPLES = 1
SMALL_SIDE = 64
LEAST_CHECKED = 8  # maps, of large pictures
CALIBRATION_ROWS_LARGE = 128  # of larger pictures: the activations of all are kept together


def write_artifact(
    draft: Draft, fitted: Fitted, data: ImageData, training: Training
) -> TrainedClassifierManifest:
    """Write every file of the artifact into its draft; returns the manifest.

    ``training`` is what the manifest says of how it was trained. Raises JobError if a graph does
    not agree with PyTorch.
    """
    on_cpu = Device(torch.device("cpu"), bfloat16=False)
    network = fitted.network.cpu()
    normalise = fitted.normalise.cpu()
    predict = predictor(network, normalise, on_cpu)
    with told("finding the temperature, and how familiar pictures are"):
        logits = torch.cat(
            [
                predict(chunk)
                for chunk in data.validation.images.split(at_once(500, data.validation.images))
            ]
        )
        temperature = fit_temperature(logits, data.validation.labels)
        folded = network.folded()  # type: ignore[operator]
        familiarity = fit_familiarity(folded, normalise, data.train, data.validation)
        served = frozen(Probabilities(folded, normalise, temperature, familiarity))
    with told("exporting probabilities and saliency map, and comparing them with PyTorch"):
        functions, samples = _export(served, data, draft.folder)
    with told("making the int8 variant, and timing it"):
        functions["probabilities"], int8 = _add_int8(
            functions["probabilities"], data, samples, draft.folder
        )
    metrics = _measure(draft.folder, data, logits.softmax(1), temperature) | {"int8": int8}
    checked = check_saliency(served, data)
    metrics["saliency"] = checked.as_metrics()
    if failures := checked.failures():
        print(f"saliency is not published: {'; '.join(failures)}")
        (draft.folder / functions.pop("saliency").graph.file).unlink()
        samples = {key: rows for key, rows in samples.items() if not key.startswith("saliency.")}
    report.write_samples(draft.folder, functions, samples)
    report.write_checkpoint(
        draft.folder, torch.nn.ModuleDict({"network": network, "normalise": normalise})
    )
    report.write_metrics(draft.folder, metrics)
    manifest = TrainedClassifierManifest(
        **draft.header,
        functions=functions,
        parameters=summarise(network, torch.zeros(2, 3, data.side, data.side)),
        data=data_record(data),
        training=training,
        metrics=classifier_report.headline(metrics),
        classes=data.classes,
        resize=data.resize,
    )
    history = [asdict(row) for row in fitted.history]
    report.write_history(draft.folder, history)
    classifier_report.write(draft.folder, manifest, metrics, history)
    return manifest


def check_saliency(served: Probabilities, data: ImageData) -> SaliencyFigures:
    """The map of ``served`` on validation images; where there are few, on training images too."""
    wanted = max(LEAST_CHECKED, at_once(saliency_checks.IMAGES, data.validation.images))
    generator = torch.Generator().manual_seed(0)
    parts = []
    for split in (data.validation, data.train):
        chosen = torch.randperm(len(split), generator=generator)[:wanted]
        parts.append(split.images[chosen])
    images = torch.cat(parts)[: min(wanted, saliency_checks.IMAGES)]
    with told(f"checking the saliency map on {len(images)} images"):
        return saliency_checks.check(
            served.network,
            served.prepare,
            lambda network: saliency(network, served.prepare, method="integrated"),
            images.permute(0, 2, 3, 1).contiguous(),
            integrated=True,
        )


def data_record(data: ImageData) -> Data:
    """What a manifest says of the images."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    rows = {name: len(split) for name, split in splits.items()}
    return Data(name=data.name, sha256=data.sha256, rows=sum(rows.values()), splits=rows)


def probability_tolerances(classes: int) -> Tolerances:
    """Of probabilities; the largest of an unsure network is hardly more than 1 / ``classes``, and
    the service accepts ``LOOSEST`` of it."""
    return Tolerances(absolute=min(1e-4, LOOSEST["float32"] / classes), relative=1e-4)


def _export(
    served: Probabilities, data: ImageData, folder: Path
) -> tuple[dict[str, Function], dict[str, Any]]:
    """``probabilities`` and ``saliency`` with the arrays of samples.npz."""
    pictures = [make(8 * SAMPLES, side=data.side) for make in (sample_images, natural_images)]
    probabilities, samples = export_function(
        served,
        {"image": torch.cat(pictures)},
        served.outputs,
        folder,
        "probabilities",
        tolerances=probability_tolerances(len(data.classes)),
    )
    explain = saliency(served.network, served.prepare, method="integrated")
    images, labels, largest = _steady_samples(served, len(data.classes), data.side)
    gradient, arrays = export_function(
        explain,
        {"image": images, "class": labels},
        ["saliency"],
        folder,
        "saliency",
        tolerances=Tolerances(absolute=1e-4 * largest, relative=1e-4),
    )
    # Checked to 1e-4 here. Where it is loaded, another processor's rounding may decide a pool's
    # tie the other way, which moves single pixels of the map by more.
    agreement = gradient.graph.agreement.model_copy(update={"absolute_tolerance": 1e-2 * largest})
    gradient = gradient.model_copy(
        update={"graph": gradient.graph.model_copy(update={"agreement": agreement})}
    )
    return {"probabilities": probabilities, "saliency": gradient}, samples | arrays


def _steady_samples(
    served: Probabilities, classes: int, side: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Images and classes to check saliency with, and the largest value of their maps.

    Where two inputs of a max-pool are equal up to rounding, the gradient jumps, and two correct
    programs may differ. So the images are taken for which PyTorch's own maps in float32 and float64
    differ least, relative to the map's largest value.
    """
    images = sample_images(4 * SAMPLES if side <= SMALL_SIDE else SAMPLES // 2, side=side)
    labels = torch.arange(len(images)) % classes
    double = copy.deepcopy(served.network).double()
    in_single = saliency(served.network, served.prepare, method="integrated")
    in_double = saliency(double, lambda image: served.prepare(image).double(), method="integrated")
    # Large images one by one: each is already a batch of many copies, which takes gigabytes.
    rows = len(images) if side <= SMALL_SIDE else 1
    pairs = list(zip(images.split(rows), labels.split(rows), strict=True))
    single_maps = torch.cat([in_single(image, label) for image, label in pairs])
    double_maps = torch.cat([in_double(image, label) for image, label in pairs])
    sizes = double_maps.abs().amax((1, 2))
    differences = (single_maps - double_maps).abs().amax((1, 2)) / sizes
    chosen = differences.argsort()[:SALIENCY_SAMPLES].sort().values
    return images[chosen], labels[chosen], float(sizes[chosen].max())


def _add_int8(
    function: Function, data: ImageData, samples: dict[str, Any], folder: Path
) -> tuple[Function, dict[str, float]]:
    """``function`` with its int8 variant, and what that gives on validation images.

    Of the images in ``samples`` those are kept on which int8 differs least from fp32: one of each
    eighth, where the eighths differ in how familiar they are. Synthetic images lie between classes
    more often than real ones, where rounding moves probabilities far.
    The replay looks for processors that compute int8 differently, which shows on every image.
    """
    plain, small = folder / function.graph.file, folder / "probabilities.int8.onnx"
    generator = torch.Generator().manual_seed(0)
    wanted = CALIBRATION_ROWS if data.side <= SMALL_SIDE else CALIBRATION_ROWS_LARGE
    chosen = torch.randperm(len(data.train), generator=generator)[:wanted]
    images = data.train.images[chosen].permute(0, 2, 3, 1).contiguous().numpy()
    rows = quantise(plain, images, small)
    reference = run_classifier(plain, data.validation).argmax(1)
    found = run_classifier(small, data.validation).argmax(1)
    figures = {
        "calibration_images": float(rows),
        "validation_agreement": float((reference == found).mean()),
        "validation_top1": float((found == data.validation.labels.numpy()).mean()),
        "speed_up": single_image_seconds(plain) / single_image_seconds(small),
    }
    given = GraphRunner(small)({"image": samples["probabilities.image"]})
    expected = {output: samples[f"probabilities.{output}"] for output in given}
    errors = np.max([_by_row(abs(given[name] - expected[name])) for name in given], axis=0)
    order = np.arange(len(errors)) if FAMILIAR not in given else expected[FAMILIAR].argsort()
    steady = [part[errors[part].argmin()] for part in np.array_split(order, SAMPLES)]
    for name in ("image", *given):
        samples[f"probabilities.{name}"] = samples[f"probabilities.{name}"][steady]
    worst = float(errors[steady].max())
    agreement = function.graph.agreement.model_copy(
        update={
            "maximum_absolute_error": worst,
            "absolute_tolerance": tolerance(worst, [array[steady] for array in expected.values()]),
            "relative_tolerance": 0.0,
            "details": figures,
        }
    )
    variant = Graph(file=small.name, precision="int8", agreement=agreement)
    return function.model_copy(update={"variants": (variant,)}), figures


def _by_row(errors: NDArray[Any]) -> NDArray[Any]:
    """The largest of each row's errors."""
    return errors.reshape(len(errors), -1).max(1)


def _measure(
    folder: Path, data: ImageData, uncalibrated: torch.Tensor, temperature: float
) -> dict[str, Any]:
    """Scores of the exported graph on the images that training may see."""
    splits = {"train": data.train, "validation": data.validation}
    scores: dict[str, Any] = {}
    images = sum(map(len, splits.values()))
    with told("measuring the exported graph", "images", images) as advance:
        for name, split in splits.items():
            found = run_classifier(folder / "probabilities.onnx", split, advance)
            scores[name] = asdict(score(found, split.labels.numpy()))
    before = score(uncalibrated.numpy(), data.validation.labels.numpy())
    return {
        "scores": scores,
        "temperature": temperature,
        "before_temperature": {"validation": asdict(before)},
    }
