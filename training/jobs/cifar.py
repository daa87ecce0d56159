"""Train an image classifier and publish it.

python -m training cifar --network baseline|improved [--preset quick] [--images FOLDER_OR_ZIP]

The test images are not looked at here: ``python -m training evaluate MODEL`` does that, once.
"""

import argparse
import copy
import shutil
import time
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from contract.errors import UnsafePath
from contract.manifest import ClassifierManifest, Data, Function, Graph
from contract.store import Draft
from training.data.images import ImageData, Split, load_images
from training.errors import JobError
from training.fit import checkpoint
from training.fit.checkpoint import Epoch
from training.fit.device import Device, choose_device
from training.fit.loop import Fitted, fit, predictor
from training.fit.presets import preset
from training.fit.recipe import Recipe
from training.networks.classifier import make_classifier
from training.provenance import training_record
from training.publish import classifier_report, report
from training.publish.agreement import GraphRunner, Tolerances
from training.publish.classifier import Probabilities, fit_temperature, sample_images
from training.publish.derivatives import frozen, saliency
from training.publish.export import export_function
from training.publish.int8 import CALIBRATION_ROWS, quantise
from training.publish.measure import run_classifier, score, single_image_seconds
from training.publish.parameters import summarise

SAMPLES = 8
SPLIT_SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training cifar``."""
    parser.add_argument("--network", choices=("baseline", "improved"), required=True)
    parser.add_argument(
        "--preset",
        choices=("release", "quick"),
        default="release",
        help="quick: a narrower network",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=None,
        metavar="FOLDER_OR_ZIP",
        help="train/<class>/* and test/<class>/*, or <class>/*; by default CIFAR-10 is downloaded",
    )
    parser.add_argument("--name", default=None, help="of the model; by default cifar-NETWORK")
    parser.add_argument("--epochs", type=int, default=None, help="by default the preset's")
    parser.add_argument("--seed", type=int, default=0, help="0 is the released one")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--restart", action="store_true", help="start anew, whatever an interrupted run left"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where checkpoints are kept"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="change one number of the recipe, such as cutout=0 (repeatable)",
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="train and print the validation scores only"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train, export, check, publish. Raises JobError, and then nothing is published."""
    device = choose_device(arguments.device)
    recipe = _recipe(arguments)
    model = arguments.name or f"cifar-{arguments.network}"
    folder = arguments.runs / model
    try:
        Draft(arguments.artifacts, model)
    except UnsafePath as error:
        raise JobError(f"--name {model}: {error.reason}") from None
    _prepare_folder(folder, arguments)
    data = _load(arguments.images)
    torch.manual_seed(arguments.seed)
    network = make_classifier(arguments.network, arguments.preset, len(data.classes))
    identity = {"network": arguments.network, "data": data.sha256, "split_seed": SPLIT_SEED}
    if arguments.preset != "release":
        identity["preset"] = arguments.preset
    fitted = _fit(network, data, recipe, arguments.seed, device, folder, identity)
    if arguments.no_publish:
        return
    with Draft(arguments.artifacts, model) as draft:
        manifest = _prepare(draft, fitted, data, recipe, arguments)
        published = draft.publish(manifest)
    print(f"published {published.folder}")
    print(f"the test images, once, at the end: python -m training evaluate {model}")


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = preset(arguments.network, arguments.preset)
    known = {entry.name: entry for entry in fields(Recipe) if entry.name != "optimizer"}
    for change in arguments.changes:
        name, _, text = change.partition("=")
        if name not in known:
            raise JobError(f"--set {change}: NAME must be one of {', '.join(known)}")
        kind = type(getattr(recipe, name))
        try:
            value = text.lower() in ("1", "true", "yes") if kind is bool else kind(text)
        except ValueError:
            raise JobError(f"--set {change}: {text!r} is not a number of that kind") from None
        recipe = recipe.with_changes(**{name: value})
    if arguments.epochs is not None:
        recipe = recipe.with_changes(epochs=arguments.epochs)
    if recipe.epochs < 1 or recipe.batch < 1:
        raise JobError("epochs and batch must be at least 1")
    return recipe


def _prepare_folder(folder: Path, arguments: argparse.Namespace) -> None:
    path = folder / checkpoint.FILE
    if arguments.resume or not path.is_file():
        return
    if not arguments.restart and not checkpoint.is_finished(folder):
        raise JobError(
            f"{path} is of an interrupted run: go on with --resume, or start anew with --restart"
        )
    shutil.rmtree(folder)


def _load(source: Path | None) -> ImageData:
    with tqdm(desc="reading images", unit=" files", leave=False, disable=None) as bar:
        data = load_images(
            source, split_seed=SPLIT_SEED, progress=lambda files: bar.update(files - bar.n) and None
        )
    print(
        f"{data.name}: {len(data.classes)} classes; {len(data.train):,} images to train on, "
        f"{len(data.validation):,} for validation, {len(data.test):,} for the test"
    )
    for line in data.unreadable:
        print(f"skipped, not readable as a picture: {line}")
    return data


def _fit(
    network: torch.nn.Module,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    device: Device,
    folder: Path,
    identity: dict[str, Any],
) -> Fitted:
    print(f"training on {device}, {recipe.epochs} epochs, seed {seed}")
    started = time.monotonic()

    def on_epoch(row: Epoch) -> None:
        bar.clear()
        print(
            f"epoch {row.epoch}/{recipe.epochs}: loss {row.train_loss:.3f}, validation top-1 "
            f"{row.validation_top1:.2%}, top-5 {row.validation_top5:.2%}, {row.seconds:.1f} s"
        )

    def on_batch(batch: int, batches: int) -> None:
        bar.total = batches
        bar.n = batch
        bar.refresh()

    with tqdm(desc="epoch", unit=" batches", leave=False, disable=None) as bar:
        try:
            fitted = fit(
                network,
                data.train,
                data.validation,
                recipe,
                seed=seed,
                device=device,
                folder=folder,
                identity=identity,
                on_epoch=on_epoch,
                on_batch=on_batch,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "interrupted; the same command with --resume goes on after the last finished epoch"
            ) from None
    last = fitted.history[-1]
    print(
        f"trained in {sum(row.seconds for row in fitted.history):.0f} s (this session "
        f"{time.monotonic() - started:.0f} s): validation top-1 {last.validation_top1:.2%}"
    )
    return fitted


def _prepare(
    draft: Draft,
    fitted: Fitted,
    data: ImageData,
    recipe: Recipe,
    arguments: argparse.Namespace,
) -> ClassifierManifest:
    """Write every file of the artifact into its draft; returns the manifest."""
    on_cpu = Device(torch.device("cpu"), bfloat16=False)
    network = fitted.network.cpu()
    normalise = fitted.normalise.cpu()
    logits = _logits(network, normalise, data.validation, on_cpu)
    temperature = fit_temperature(logits, data.validation.labels)
    served = frozen(Probabilities(network.folded(), normalise, temperature))  # type: ignore[operator]
    functions, samples = _export(served, len(data.classes), draft.folder)
    functions["probabilities"], int8 = _add_int8(
        functions["probabilities"], data, samples, draft.folder
    )
    metrics = _measure(draft.folder, data, logits.softmax(1), temperature) | {"int8": int8}
    report.write_samples(draft.folder, samples)
    report.write_checkpoint(
        draft.folder, torch.nn.ModuleDict({"network": network, "normalise": normalise})
    )
    report.write_metrics(draft.folder, metrics)
    config = recipe.as_config() | {
        "network": arguments.network,
        "preset": arguments.preset,
        "split_seed": SPLIT_SEED,
        "unreadable_files": len(data.unreadable),
    }
    manifest = ClassifierManifest(
        model=draft.model,
        version=1,  # the draft gives it the next one
        created_utc=datetime.now(UTC),
        functions=functions,
        files={},
        parameters=summarise(network, torch.zeros(2, 3, 32, 32)),
        data=Data(
            name=data.name,
            sha256=data.sha256,
            rows=len(data.train) + len(data.validation) + len(data.test),
            splits={
                "train": len(data.train),
                "validation": len(data.validation),
                "test": len(data.test),
            },
        ),
        training=training_record(
            config,
            seed=arguments.seed,
            epochs=len(fitted.history),
            wall_seconds=sum(row.seconds for row in fitted.history),
            device="; ".join(fitted.devices),
        ),
        metrics=classifier_report.headline(metrics),
        classes=data.classes,
    )
    history = [asdict(row) for row in fitted.history]
    report.write_history(draft.folder, history)
    classifier_report.write(draft.folder, manifest, metrics, history)
    return manifest


def _logits(
    network: torch.nn.Module, normalise: torch.nn.Module, split: Split, device: Device
) -> torch.Tensor:
    predict = predictor(network, normalise, device)  # type: ignore[arg-type]
    return torch.cat([predict(chunk) for chunk in split.images.split(500)])


def _export(
    served: Probabilities, classes: int, folder: Path
) -> tuple[dict[str, Function], dict[str, Any]]:
    """``probabilities`` and ``saliency`` with the arrays of samples.npz."""
    probabilities, samples = export_function(
        served,
        {"image": sample_images(8 * SAMPLES)},
        ["probabilities"],
        folder,
        "probabilities",
        tolerances=Tolerances(absolute=1e-4, relative=1e-4),
        precision="fp32",
    )
    explain = saliency(served.network, served.prepare, method="integrated")
    images, labels, largest = _steady_samples(served, classes)
    gradient, arrays = export_function(
        explain,
        {"image": images, "class": labels},
        ["saliency"],
        folder,
        "saliency",
        tolerances=Tolerances(absolute=1e-4 * largest, relative=1e-4),
        precision="fp32",
    )
    # Checked to 1e-4 here. Where it is loaded, another processor's rounding may decide a pool's
    # tie the other way, which moves single pixels of the map by more.
    agreement = gradient.graph.agreement.model_copy(update={"absolute_tolerance": 1e-2 * largest})
    gradient = gradient.model_copy(
        update={"graph": gradient.graph.model_copy(update={"agreement": agreement})}
    )
    return {"probabilities": probabilities, "saliency": gradient}, samples | arrays


def _steady_samples(
    served: Probabilities, classes: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Images and classes to check saliency with, and the largest value of their maps.

    Where two inputs of a max-pool are equal but for rounding, the gradient jumps, and no two
    programs need agree. PyTorch's own maps in float32 and float64 tell: the images for which these
    differ least are taken.
    """
    images = sample_images(4 * SAMPLES)
    labels = torch.arange(len(images)) % classes
    double = copy.deepcopy(served.network).double()
    single_maps = saliency(served.network, served.prepare, method="integrated")(images, labels)
    double_maps = saliency(
        double, lambda image: served.prepare(image).double(), method="integrated"
    )(images, labels)
    differences = (single_maps - double_maps).abs().amax((1, 2))
    chosen = differences.argsort()[:SAMPLES].sort().values
    return images[chosen], labels[chosen], float(double_maps[chosen].max())


def _add_int8(
    function: Function, data: ImageData, samples: dict[str, Any], folder: Path
) -> tuple[Function, dict[str, float]]:
    """``function`` with its int8 variant, and what that gives on validation images.

    Of the images in ``samples`` those stay on which int8 differs least from fp32. The made images
    lie between classes more often than real ones, where any rounding moves probabilities far; and
    what the replay is to find, a processor that computes int8 otherwise, shows on all of them.
    """
    plain, small = folder / function.graph.file, folder / "probabilities.int8.onnx"
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    chosen = torch.randperm(len(data.train), generator=generator)[:CALIBRATION_ROWS]
    quantise(plain, data.train.images[chosen].permute(0, 2, 3, 1).contiguous().numpy(), small)
    reference = run_classifier(plain, data.validation).argmax(1)
    found = run_classifier(small, data.validation).argmax(1)
    figures = {
        "validation_agreement": float((reference == found).mean()),
        "validation_top1": float((found == data.validation.labels.numpy()).mean()),
        "speed_up": single_image_seconds(plain) / single_image_seconds(small),
    }
    image, expected = samples["probabilities.image"], samples["probabilities.probabilities"]
    errors = abs(GraphRunner(small)({"image": image})["probabilities"] - expected).max(1)
    steady = sorted(errors.argsort()[:SAMPLES])
    samples["probabilities.image"] = image[steady]
    samples["probabilities.probabilities"] = expected[steady]
    worst = float(errors[steady].max())
    # Other processors add int8 products in another order and width: the same graph may be off by
    # somewhat more there, but not by a multiple.
    agreement = function.graph.agreement.model_copy(
        update={
            "maximum_absolute_error": worst,
            "absolute_tolerance": round(2 * worst + 0.02, 3),
            "relative_tolerance": 0.0,
            "details": figures,
        }
    )
    variant = Graph(file=small.name, precision="int8", agreement=agreement)
    return function.model_copy(update={"variants": (variant,)}), figures


def _measure(
    folder: Path, data: ImageData, uncalibrated: torch.Tensor, temperature: float
) -> dict[str, Any]:
    """Scores of the exported graph on the images that training may see."""
    splits = {"train": data.train, "validation": data.validation}
    scores: dict[str, Any] = {}
    with tqdm(
        desc="measuring", total=sum(map(len, splits.values())), leave=False, disable=None
    ) as bar:
        for name, split in splits.items():
            found = run_classifier(
                folder / "probabilities.onnx", split, lambda rows: bar.update(rows) and None
            )
            scores[name] = asdict(score(found, split.labels.numpy()))
    before = score(uncalibrated.numpy(), data.validation.labels.numpy())
    return {
        "scores": scores,
        "temperature": temperature,
        "before_temperature": {"validation": asdict(before)},
    }
