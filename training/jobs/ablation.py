"""Train every step from the homework's table to our own network, and keep what each gave.

python -m training ablation --images cifar10.zip [--epochs 10] [--train-images 10000]

One row a step is kept as it ends, so that the same command goes on where it was stopped. The test
images are not looked at.
"""

import argparse
import csv
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from training import options
from training.data.images import ImageData, Split, load_images
from training.errors import JobError
from training.fit.device import Device, choose_device
from training.fit.ladder import Step, ladder
from training.fit.loop import fit
from training.publish.parameters import summarise

SPLIT_SEED = 0


@dataclass(frozen=True)
class Row:
    """What a step gave. Accuracies are shares of the validation images, single view."""

    step: str
    parameters: int
    multiply_adds: int
    epochs: int
    train_images: int
    validation_images: int
    seed: int
    train_loss: float
    validation_loss: float
    validation_top1: float
    processor_seconds: float
    device: str
    definition: str
    data_sha256: str

    def settings(self) -> tuple[object, ...]:
        """What must be alike for two rows to be compared."""
        return self.epochs, self.train_images, self.validation_images, self.seed, self.data_sha256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training ablation``."""
    parser.add_argument(
        "--images",
        type=Path,
        default=None,
        metavar="FOLDER_OR_ZIP",
        help="by default CIFAR-10 is downloaded",
    )
    parser.add_argument("--epochs", type=int, default=10, help="of every step")
    parser.add_argument(
        "--train-images",
        type=int,
        default=None,
        metavar="COUNT",
        help="to train on, chosen at random; by default all that aren't for validation",
    )
    parser.add_argument("--seed", type=options.seed, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--table",
        type=Path,
        default=Path("service/static/homework/ablation.csv"),
        metavar="CSV",
        help="where the rows are kept; /homework shows those of the default",
    )
    parser.add_argument("--restart", action="store_true", help="forget the rows that are kept")


def run(arguments: argparse.Namespace) -> None:
    """Train what the table lacks. Raises JobError if it is of other settings."""
    if arguments.epochs < 1:
        raise JobError(f"--epochs {arguments.epochs}: it must be at least 1")
    device = choose_device(arguments.device)
    rows = [] if arguments.restart else read(arguments.table)
    data = load_images(arguments.images, split_seed=SPLIT_SEED, side=32)
    train = _some(data.train, arguments.train_images)
    settings = (
        arguments.epochs,
        len(train),
        len(data.validation),
        arguments.seed,
        data.sha256,
    )
    if any(row.settings() != settings for row in rows):
        raise JobError(
            f"{arguments.table} is of other images, epochs or another seed; "
            "start anew with --restart, or name another --table"
        )
    steps = ladder(arguments.epochs)
    kept = {(row.step, row.definition): row for row in rows}
    before: Row | None = None
    for number, step in enumerate(steps):
        row = kept.get((step.name, step.definition()))
        if row is None:
            row = _train(step, data, train, arguments.seed, device)
            kept[row.step, row.definition] = row
            # What isn't a step any more goes; those still to come stay.
            wanted = [(s.name, s.definition()) for s in steps]
            write(arguments.table, [kept[key] for key in wanted if key in kept])
        gain = ""
        if before is not None:
            gain = f", {100 * (row.validation_top1 - before.validation_top1):+.2f} points"
        print(
            f"{number + 1}/{len(steps)} {row.step}: validation top-1 {row.validation_top1:.2%}"
            f"{gain}; {row.parameters:,} parameters, {row.processor_seconds:.0f} s of processor",
            flush=True,
        )
        before = row
    print(f"kept in {arguments.table}")


def read(path: Path) -> list[Row]:
    """The rows that are kept in ``path``; none if there is no such file. Raises JobError."""
    if not path.is_file():
        return []
    kinds = {field.name: field.type for field in fields(Row)}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                Row(**{name: kinds[name](text) for name, text in row.items()})  # type: ignore[operator]
                for row in csv.DictReader(stream)
            ]
    except (KeyError, TypeError, ValueError):
        raise JobError(f"{path}: this is not a table of this job; name another --table") from None


def write(path: Path, rows: list[Row]) -> None:
    """Keep ``rows``; what was there stays until all are written."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    temporary.replace(path)


def _train(step: Step, data: ImageData, train: Split, seed: int, device: Device) -> Row:
    torch.manual_seed(seed)
    network = step.plan.build(len(data.classes))
    size = summarise(network, torch.zeros(1, 3, data.side, data.side))
    started = time.process_time()
    fitted = fit(network, train, data.validation, step.recipe, seed=seed, device=device)
    last = fitted.history[-1]
    return Row(
        step=step.name,
        parameters=size.total,
        multiply_adds=size.multiply_adds or 0,
        epochs=step.recipe.epochs,
        train_images=len(train),
        validation_images=len(data.validation),
        seed=seed,
        train_loss=round(last.train_loss, 5),
        validation_loss=round(last.validation_loss, 5),
        validation_top1=last.validation_top1,
        processor_seconds=round(time.process_time() - started, 1),
        device=str(device),
        definition=step.definition(),
        data_sha256=data.sha256,
    )


def _some(split: Split, count: int | None) -> Split:
    """``count`` of the images, always the same; all where that is None. Raises JobError."""
    if count is None:
        return split
    if not 1 <= count <= len(split):
        raise JobError(f"--train-images {count}: give 1 to {len(split):,}")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return Split(split.images[order[:count]], split.labels[order[:count]])
