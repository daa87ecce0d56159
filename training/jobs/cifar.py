"""Train an image classifier and publish it.

python -m training cifar --network baseline|improved [--preset hour|quick] [--images FOLDER_OR_ZIP]
python -m training cifar --network improved|fast --teacher RUN …   the runs of --network wide
torchrun --nproc-per-node=2 -m training cifar …              on several devices
python -m training cifar --images photos.zip [--side 96] [--backbone resnet18 --weights FILE]

The test images are not looked at here: ``python -m training evaluate MODEL`` does that, once.
"""

import argparse
import hashlib
import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from tqdm import tqdm

from contract.pixels import Resize
from contract.remote import Root, open_draft
from contract.system import lock
from training import naming
from training.data.images import SIDES, ImageData, load_images
from training.errors import JobError
from training.fit import checkpoint
from training.fit.checkpoint import Epoch
from training.fit.device import Device, choose_device
from training.fit.loop import Fitted, fit
from training.fit.presets import NAMES, ONE_RECIPE, preset
from training.fit.process_group import ProcessGroup, join
from training.fit.recipe import Recipe
from training.fit.teacher import describe, load_teachers, provenance
from training.jobs.evaluate import command
from training.naming import choose_name, require_replaceable
from training.networks.backbone import BACKBONES, read_weights
from training.networks.classifier import NETWORKS, check_side, make_classifier
from training.provenance import training_record
from training.publish.classifier_artifact import data_record, write_artifact
from training.publish.classifier_report import shows_top5

SPLIT_SEED = 0
UNBALANCED = 3  # times as many pictures of a class as of another
TELL_SECONDS = 30.0
LONG_MINUTES = 10  # for which it is said what would take less
SHORT_SIDE = 64
SHOWN_CLASSES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training cifar``."""
    parser.add_argument("--network", choices=NETWORKS, default="improved")
    parser.add_argument(
        "--backbone",
        choices=BACKBONES,
        default=None,
        help="in place of --network: fine-tune this pretrained network of torchvision's",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=None,
        metavar="FILE",
        help="the backbone's weights, .safetensors or .pth; nothing is downloaded",
    )
    parser.add_argument(
        "--preset",
        choices=NAMES,
        default="release",
        help="of --network baseline and improved, without teachers. hour: what two CPU cores train "
        "in one, which with bfloat16 is all of release; quick: fewer epochs, for improved also a "
        "narrower network",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=None,
        metavar="FOLDER_OR_ZIP",
        help="train/<class>/* and test/<class>/*, or <class>/*; by default CIFAR-10 is downloaded",
    )
    parser.add_argument(
        "--side",
        type=int,
        choices=SIDES,
        default=None,
        help="pixels that pictures are resized to; by default the smallest that holds the median "
        "picture",
    )
    parser.add_argument(
        "--resize",
        choices=get_args(Resize),
        default="crop",
        help="what becomes of a picture that isn't square: its central square, grey bars beside "
        "it, or other proportions",
    )
    parser.add_argument(
        "--balance",
        action="store_true",
        help="train on every class equally often, however few pictures it has",
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
        nargs="+",
        default=None,
        metavar="RUN",
        help="folder of a finished run, such as runs/cifar-wide: its network is the teacher; "
        "of several, the mean of their logits",
    )
    parser.add_argument("--seed", type=int, default=0, help="0 is the released one")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    left = parser.add_mutually_exclusive_group()
    left.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    left.add_argument(
        "--restart", action="store_true", help="start anew, whatever an interrupted run left"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where checkpoints are kept"
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=_minutes,
        default=10.0,
        metavar="MINUTES",
        help="between checkpoints within an epoch; one is kept after each epoch in any case",
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


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of minutes; give one from 0, which keeps one after every batch"
        )
    return minutes


def run(arguments: argparse.Namespace) -> None:
    """Train, export, check, publish. Raises JobError, and then nothing is published.

    Everything that can be wrong with the options is looked at before an old run is removed.
    """
    with join(choose_device(arguments.device)) as (group, device), group.quiet():
        _run(arguments, group, device)


def _run(arguments: argparse.Namespace, group: ProcessGroup, device: Device) -> None:
    """In one process of the group. Only the first writes anything."""
    if (arguments.backbone is None) != (arguments.weights is None):
        raise JobError("--backbone NAME and --weights FILE go together; give both")
    network_name = arguments.backbone or arguments.network
    _recipe(arguments, network_name, device)
    model = choose_name(arguments.name, arguments.images or Path(f"cifar-{network_name}"))
    folder = arguments.runs / model
    with _only_run_in(folder) if group.leads else nullcontext():
        _train_and_publish(arguments, group, device, network_name, model, folder)


def _train_and_publish(
    arguments: argparse.Namespace,
    group: ProcessGroup,
    device: Device,
    network_name: str,
    model: str,
    folder: Path,
) -> None:
    _check_folder(folder, arguments)
    if arguments.weights is not None:
        read_weights(arguments.weights)
    data = _load(arguments, network_name, group)
    check_side(network_name, data.side)
    recipe = _recipe(arguments, network_name, device, data)
    if not arguments.no_publish:
        require_replaceable(
            arguments.artifacts, model, data_record(data), replace=arguments.replace
        )
    torch.manual_seed(arguments.seed)
    network = make_classifier(
        network_name, arguments.preset, len(data.classes), data.side, arguments.weights
    )
    identity = _identity(arguments, network_name, data)
    teacher = None
    if arguments.teacher is not None:
        teacher = load_teachers(arguments.teacher, len(data.classes), identity)
        identity["teacher"] = describe(arguments.teacher)
    if arguments.restart or (checkpoint.is_finished(folder) and not arguments.resume):
        group.wait()  # until all have looked whether it is finished
        if group.leads:
            shutil.rmtree(folder, ignore_errors=True)
        group.wait()
    fitted = _fit(arguments, network, data, recipe, device, folder, identity, teacher, group)
    if arguments.no_publish or not group.leads:
        return
    with _said_to_be_kept(arguments.artifacts), open_draft(arguments.artifacts, model) as draft:
        config = recipe.as_config() | {
            "network": network_name,
            "preset": arguments.preset,
            "side": data.side,
            "weights": identity.get("weights", ""),
            "split_seed": SPLIT_SEED,
            "unreadable_files": len(data.unreadable),
            "copies": [what for what, _ in data.copies],
        }
        if arguments.zip_encoding is not None:
            config["zip_encoding"] = arguments.zip_encoding
        if arguments.teacher is not None:
            config["teachers"] = [provenance(folder) for folder in arguments.teacher]
        if arguments.validation is not None:
            config["validation"] = arguments.validation
        record = training_record(
            config,
            seed=arguments.seed,
            epochs=len(fitted.history),
            wall_seconds=sum(row.seconds for row in fitted.history),
            device="; ".join(fitted.devices),
        )
        manifest = write_artifact(draft, fitted, data, record)
        draft.publish(manifest)
    print(f"published {draft.published}")
    print(f"the test images, once, at the end: {command(model, arguments)}")


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """Raises JobError while another process trains in ``folder``: each would lose its checkpoints
    to the other. A killed process leaves no lock."""
    path = folder.parent / f".{folder.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}; give another folder by --runs") from None
    with stream:
        try:
            lock(stream)
        except OSError:
            raise JobError(
                f"{folder}: another run is training here; wait for it, or give another --name "
                "or --runs"
            ) from None
        yield


@contextmanager
def _said_to_be_kept(artifacts: Root) -> Iterator[None]:
    """Of a run that is stopped while it publishes: without --resume it would be trained anew."""
    kept = "the training is kept: the same command with --resume publishes it"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; nothing half-done was published; {kept}") from None
    except OSError as error:
        raise JobError(f"{error.filename or artifacts}: {error.strerror}; {kept}") from None


def _identity(arguments: argparse.Namespace, network: str, data: ImageData) -> dict[str, Any]:
    """What decides the outcome besides the recipe and the seed; older runs lack the later names."""
    identity: dict[str, Any] = {"network": network, "data": data.sha256, "split_seed": SPLIT_SEED}
    if data.side != SIDES[0]:
        identity["side"] = data.side
    if data.resize != "crop":
        identity["resize"] = data.resize
    if arguments.weights is not None:
        identity["weights"] = hashlib.sha256(arguments.weights.read_bytes()).hexdigest()
    if arguments.preset != "release":
        identity["preset"] = arguments.preset
    if arguments.validation is not None:
        identity["validation"] = arguments.validation
    return identity


def _recipe(
    arguments: argparse.Namespace, network: str, device: Device, data: ImageData | None = None
) -> Recipe:
    """The preset, made for ``data`` where it is known, with the changes that were asked for."""
    taught = arguments.teacher is not None
    recipe = preset(network, arguments.preset, taught=taught, bfloat16=device.bfloat16)
    if data is not None:
        recipe = recipe.for_images(len(data.train), data.side)
    if arguments.balance:
        recipe = recipe.with_changes(balanced=True)
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
    _check_teaching(recipe, arguments, network)
    return recipe


def _check_teaching(recipe: Recipe, arguments: argparse.Namespace, network: str) -> None:
    """Raise JobError where the options leave out a teacher, or give one for nothing."""
    if network in ONE_RECIPE and arguments.preset != "release":
        raise JobError(
            f"--network {network} has one recipe: leave --preset out; fewer --epochs take less"
        )
    if recipe.teacher_share > 0 and arguments.teacher is None:
        raise JobError(
            f"--network {network}: this recipe learns from other networks. Train them first, by "
            "--network wide --no-publish, and name their runs: --teacher RUN RUN; or train it "
            "alone: --set teacher_share=0 --set teacher_copies=0"
        )
    if recipe.teacher_share <= 0 and arguments.teacher is not None:
        raise JobError(
            "--teacher: this recipe takes nothing from a teacher; leave --preset out with "
            "--network improved, or add --set teacher_share=0.9"
        )


def _check_folder(folder: Path, arguments: argparse.Namespace) -> None:
    path = folder / checkpoint.FILE
    if arguments.resume and not path.is_file():
        print(f"nothing is kept in {folder} to go on from: it begins anew")
    if arguments.resume or arguments.restart or not path.is_file():
        return
    if not checkpoint.is_finished(folder):
        raise JobError(
            f"{path} is of an interrupted run: go on with --resume, or start anew with --restart"
        )


def _load(arguments: argparse.Namespace, network: str, group: ProcessGroup) -> ImageData:
    if not group.leads:
        group.wait()  # until the first process has downloaded what is to be downloaded
    data = load_images(
        arguments.images,
        split_seed=SPLIT_SEED,
        validation=arguments.validation,
        side=32 if arguments.side is None and network == "baseline" else arguments.side,
        resize=arguments.resize,
        zip_encoding=arguments.zip_encoding,
    )
    if group.leads:
        group.wait()
    shown = ", ".join(data.classes[:SHOWN_CLASSES])
    more = ", …" if len(data.classes) > SHOWN_CLASSES else ""
    print(
        f"{data.name}: {len(data.classes)} classes ({shown}{more}); {len(data.train):,} images to "
        "train on, "
        f"{len(data.validation):,} for validation, {len(data.test):,} for the test"
    )
    if arguments.images is not None:
        chosen = "as asked" if arguments.side else "choose another with --side"
        print(f"each picture becomes {data.side}×{data.side} pixels ({chosen}), by {data.resize}")
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    if counts.max() > UNBALANCED * counts.min() and not arguments.balance:
        few, many = data.classes[int(counts.argmin())], data.classes[int(counts.argmax())]
        print(
            f"{few} has {int(counts.min())} pictures and {many} {int(counts.max())}: --balance "
            "trains on every class equally often"
        )
    for line in data.unreadable:
        print(f"skipped, not readable as a picture: {line}")
    for kind, count in data.left_out:
        print(f"left out: {count} {kind}")
    for line in data.warnings():
        print(line)
    return data


def _fit(
    arguments: argparse.Namespace,
    network: torch.nn.Module,
    data: ImageData,
    recipe: Recipe,
    device: Device,
    folder: Path,
    identity: dict[str, Any],
    teacher: torch.nn.Module | None,
    group: ProcessGroup,
) -> Fitted:
    count = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    processes = "" if group.size == 1 else f"{group.size} processes, each on "
    print(f"training on {processes}{device}, {count}, seed {arguments.seed}")
    if advice := device.advice():
        print(advice)
    started = epoch_began = told = time.monotonic()
    few_classes = not shows_top5(data.classes)
    advised = False

    def on_epoch(row: Epoch) -> None:
        bar.clear()
        print(
            f"epoch {row.epoch}/{recipe.epochs}: loss {row.train_loss:.3f}, top-1 in training "
            f"{row.train_top1:.2%}, validation top-1 {row.validation_top1:.2%}"
            + ("" if few_classes else f", top-5 {row.validation_top5:.2%}")
            + f", {row.seconds:.1f} s{_to_go(row, recipe.epochs)}"
        )
        nonlocal epoch_began, told, advised
        if not advised and _minutes_to_go(row, recipe.epochs) >= LONG_MINUTES:
            print(f"too long? Ctrl-C; {_shorter(arguments, data.side)}")
        advised = True
        epoch_began = told = time.monotonic()

    def on_batch(batch: int, batches: int) -> None:
        bar.total = batches
        bar.n = batch
        bar.refresh()
        nonlocal told
        now = time.monotonic()
        if sys.stderr.isatty() or now - told < TELL_SECONDS or batch == batches:
            return
        told = now
        left = (now - epoch_began) / batch * (batches - batch)
        print(f"  batch {batch}/{batches}, about {left:.0f} s to the end of the epoch")

    with tqdm(desc="epoch", unit=" batches", leave=False, disable=None) as bar:
        try:
            fitted = fit(
                network,
                data.train,
                data.validation,
                recipe,
                seed=arguments.seed,
                device=device,
                teacher=teacher,
                folder=folder,
                identity=identity,
                on_epoch=on_epoch,
                on_batch=on_batch,
                keep_seconds=60 * arguments.checkpoint_minutes,
                group=group,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_kept(folder, arguments.checkpoint_minutes)) from None
    last = fitted.history[-1]
    print(
        f"trained in {sum(row.seconds for row in fitted.history):.0f} s (this session "
        f"{time.monotonic() - started:.0f} s): validation top-1 {last.validation_top1:.2%}"
    )
    return fitted


def _minutes_to_go(row: Epoch, epochs: int) -> float:
    return row.seconds * (epochs - row.epoch) / 60


def _to_go(row: Epoch, epochs: int) -> str:
    minutes = _minutes_to_go(row, epochs)
    return f", about {minutes:.0f} min to go" if minutes >= 1 else ""


def _shorter(arguments: argparse.Namespace, side: int) -> str:
    """What makes a run of pictures of ``side`` × ``side`` shorter, beginning anew."""
    options = ["fewer --epochs"]
    one_recipe = arguments.backbone is not None or arguments.network in ONE_RECIPE
    if arguments.preset != "quick" and not one_recipe:
        options.append("--preset quick")
    if side > SHORT_SIDE:
        options.append(f"--side {SHORT_SIDE}")
    return f"the same command with --restart and {' or '.join(options)} takes less"


def _kept(folder: Path, minutes: float) -> str:
    """What an interrupted run has left, and how to go on."""
    saved = checkpoint.read(folder)
    if saved is None:
        return (
            "interrupted; nothing is kept: no epoch was finished, and the "
            f"{minutes:g} minutes of --checkpoint-minutes were not over"
        )
    where = f"epoch {len(saved.history)}" if saved.history else "the start"
    if saved.batches:
        where = f"batch {saved.batches} of epoch {len(saved.history) + 1}"
    return f"interrupted; the same command with --resume goes on after {where}"
