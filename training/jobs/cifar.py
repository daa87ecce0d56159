"""Train an image classifier and publish it.

python -m training cifar --network baseline|improved [--preset hour|quick] [--images FOLDER_OR_ZIP]

The test images are not looked at here: ``python -m training evaluate MODEL`` does that, once.
"""

import argparse
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from contract.store import Draft
from training import naming
from training.data.images import ImageData, load_images
from training.errors import JobError
from training.fit import checkpoint
from training.fit.checkpoint import Epoch
from training.fit.device import Device, choose_device
from training.fit.loop import Fitted, fit
from training.fit.presets import NAMES, preset
from training.fit.recipe import Recipe
from training.fit.teacher import describe, load_teacher
from training.naming import choose_name, require_replaceable
from training.networks.classifier import NETWORKS, make_classifier
from training.publish.classifier_artifact import data_record, write_artifact

SPLIT_SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training cifar``."""
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument(
        "--preset",
        choices=NAMES,
        default="release",
        help="hour: what two CPU cores train in one, even without bfloat16; "
        "quick: a narrower network, for fewer epochs",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=None,
        metavar="FOLDER_OR_ZIP",
        help="train/<class>/* and test/<class>/*, or <class>/*; by default CIFAR-10 is downloaded",
    )
    parser.add_argument(
        "--zip-encoding",
        default=None,
        metavar="NAME",
        help="of the names in a zip, such as cp932, where they come out wrong",
    )
    parser.add_argument(
        "--validation",
        type=int,
        default=None,
        metavar="IMAGES",
        help="to set aside from training; by default 5,000, of few images a tenth",
    )
    naming.add_arguments(parser, "that of the folder or zip, or cifar-NETWORK for CIFAR-10")
    parser.add_argument("--epochs", type=int, default=None, help="by default the preset's")
    parser.add_argument(
        "--teacher",
        type=Path,
        default=None,
        metavar="RUN",
        help="folder of a finished run, such as runs/cifar-wide: its network is the teacher",
    )
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
    """Train, export, check, publish. Raises JobError, and then nothing is published.

    Everything that can be wrong with the options is looked at before an old run is removed.
    """
    device = choose_device(arguments.device)
    recipe = _recipe(arguments)
    if arguments.images is None and arguments.name is None:
        model = f"cifar-{arguments.network}"
    else:
        model = choose_name(arguments.name, arguments.images or Path())
    folder = arguments.runs / model
    _check_folder(folder, arguments)
    data = _load(arguments)
    if not arguments.no_publish:
        require_replaceable(
            arguments.artifacts, model, data_record(data), replace=arguments.replace
        )
    if arguments.restart or (checkpoint.is_finished(folder) and not arguments.resume):
        shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(arguments.seed)
    network = make_classifier(arguments.network, arguments.preset, len(data.classes))
    identity = {"network": arguments.network, "data": data.sha256, "split_seed": SPLIT_SEED}
    if arguments.preset != "release":
        identity["preset"] = arguments.preset
    if arguments.validation is not None:
        identity["validation"] = arguments.validation
    teacher = None
    if arguments.teacher is not None:
        teacher = load_teacher(arguments.teacher, len(data.classes), identity)
        identity["teacher"] = describe(arguments.teacher)
    fitted = _fit(network, data, recipe, arguments.seed, device, folder, identity, teacher)
    if arguments.no_publish:
        return
    with Draft(arguments.artifacts, model) as draft:
        config = recipe.as_config() | {
            "network": arguments.network,
            "preset": arguments.preset,
            "split_seed": SPLIT_SEED,
            "unreadable_files": len(data.unreadable),
        }
        manifest = write_artifact(draft, fitted, data, config, arguments.seed)
        published = draft.publish(manifest)
    print(f"published {published.folder}")
    again = naming.command(
        "evaluate",
        model,
        images=arguments.images,
        zip_encoding=arguments.zip_encoding,
        artifacts=arguments.artifacts,
    )
    print(f"the test images, once, at the end: {again}")


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
    if not 0 < recipe.trained_share <= 1:
        raise JobError("trained_share must be above 0 and at most 1")
    return recipe


def _check_folder(folder: Path, arguments: argparse.Namespace) -> None:
    path = folder / checkpoint.FILE
    if arguments.resume or arguments.restart or not path.is_file():
        return
    if not checkpoint.is_finished(folder):
        raise JobError(
            f"{path} is of an interrupted run: go on with --resume, or start anew with --restart"
        )


def _load(arguments: argparse.Namespace) -> ImageData:
    with tqdm(desc="reading images", unit=" files", leave=False, disable=None) as bar:
        data = load_images(
            arguments.images,
            split_seed=SPLIT_SEED,
            validation=arguments.validation,
            zip_encoding=arguments.zip_encoding,
            progress=lambda files: bar.update(files - bar.n) and None,
        )
    print(
        f"{data.name}: {len(data.classes)} classes; {len(data.train):,} images to train on, "
        f"{len(data.validation):,} for validation, {len(data.test):,} for the test"
    )
    for line in data.unreadable:
        print(f"skipped, not readable as a picture: {line}")
    for kind, count in data.left_out:
        print(f"left out: {count} {kind}")
    return data


def _fit(
    network: torch.nn.Module,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    device: Device,
    folder: Path,
    identity: dict[str, Any],
    teacher: torch.nn.Module | None,
) -> Fitted:
    count = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    print(f"training on {device}, {count}, seed {seed}")
    if advice := device.advice():
        print(advice)
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
                teacher=teacher,
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
