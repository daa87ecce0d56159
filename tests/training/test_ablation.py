"""The ablation: steps that differ in one thing each, kept as they end."""

import csv
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from training.__main__ import main
from training.fit.ladder import CHANGES, ladder
from training.fit.presets import BASELINE, IMPROVED
from training.jobs.ablation import read
from training.networks.between import NormedBaselineCNN, Plan
from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for channel, label in enumerate(("green", "red")):
        place = folder / label
        place.mkdir()
        for index in range(40):
            values = generator.integers(0, 120, (32, 32, 3), np.uint8)
            values[:, :, 1 - channel] += 100
            Image.fromarray(values).save(place / f"{index}.png")
    return folder


def ablation(pictures: Path, table: Path, *words: str) -> int:
    return main(
        [
            *("ablation", "--images", str(pictures), "--table", str(table)),
            *("--artifacts", str(table.parent / "artifacts"), "--epochs", "1", *words),
        ]
    )


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_goes_on_where_it_was_stopped(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "ablation.csv"
    assert ablation(pictures, table) == 0
    whole = rows(table)
    assert [row["step"] for row in whole] == [name for name, *_ in CHANGES]
    for row in whole:
        assert 0 < float(row["validation_loss"]) < 100
        assert (row["epochs"], row["train_images"], row["validation_images"]) == ("1", "64", "8")
    assert (whole[0]["parameters"], whole[0]["multiply_adds"]) == ("3169218", "6391808")
    shown = capsys.readouterr().out
    assert "2/10 augmentation: validation top-1" in shown
    # As if it had been stopped after eight steps, the second of which has changed since.
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace(whole[1]["definition"], "0" * 16)
    table.write_text("\n".join(lines[:9]) + "\n")
    assert ablation(pictures, table) == 0
    again = rows(table)
    assert [row["step"] for row in again] == [row["step"] for row in whole]
    assert again[1]["definition"] == whole[1]["definition"]
    trained = [
        before["step"]
        for before, after in zip(whole, again, strict=True)
        if before["processor_seconds"] != after["processor_seconds"]
    ]
    assert set(trained) <= {"augmentation", "smoothing", "cutout"}
    for before, after in zip(whole, again, strict=True):  # the same steps, but for rounding
        assert float(before["train_loss"]) == pytest.approx(float(after["train_loss"]), rel=0.05)
    # Rows of other settings are not put beside these.
    kept = table.read_text()
    assert ablation(pictures, table, "--train-images", "20") == 2
    assert "start anew with --restart" in capsys.readouterr().err
    assert table.read_text() == kept


def test_what_cannot_be_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "ablation.csv"
    table.write_text("x,y\n1,2\n")
    assert ablation(pictures, table) == 2
    assert "not a table of this job" in capsys.readouterr().err
    assert ablation(pictures, tmp_path / "other.csv", "--train-images", "65") == 2
    assert "give 1 to 64" in capsys.readouterr().err


def test_the_first_step_is_the_homeworks_and_each_changes_something() -> None:
    steps = ladder(7)
    first, last = steps[0], steps[-1]
    assert first.recipe == BASELINE.with_changes(epochs=7)
    assert type(first.plan.build(10)) is BaselineCNN
    assert len({step.definition() for step in steps}) == len(steps)
    for before, after in pairwise(steps):
        assert (before.plan == after.plan) or (
            # The bias of a first convolution that is learned like the others is learned too.
            before.recipe.with_changes(whitening_bias_epochs=0)
            == after.recipe.with_changes(whitening_bias_epochs=0)
        ), after.name
    # The last one has the published recipe, but for its length, what depends on the batch, and
    # what only a long run needs.
    differing = {
        name for name, value in asdict(last.recipe).items() if value != asdict(IMPROVED)[name]
    }
    assert differing == {
        *("epochs", "batch", "sgd_lr", "head_lr", "weight_decay"),
        *("translate", "cutout", "trained_share"),
    }


def test_networks_between() -> None:
    images = torch.rand(3, 3, 32, 32)
    torch.manual_seed(0)
    normed = Plan(batchnorm=True).build(10)
    assert isinstance(normed, NormedBaselineCNN)
    names = [name for name, _ in normed.named_children()]
    assert names[:3] == ["conv1", "norm_conv1", "relu1"]
    assert names[names.index("conv2") + 1] == "norm_conv2"
    assert normed(images).shape == (3, 10)
    torch.manual_seed(0)
    plain = BaselineCNN()
    seen: dict[str, torch.Tensor] = {}
    normed.norm_conv1.register_forward_hook(lambda *given: seen.update(out=given[2]))
    normed.train()(images)
    assert seen["out"].mean().abs() < 1e-5
    assert torch.equal(normed.conv1.weight, plain.conv1.weight)
    learned = Plan(groups=True).build(10)
    before = learned.whitening.weight.clone()
    learned.prepare(images)
    assert torch.equal(learned.whitening.weight, before)
    assert learned.whitening.weight.requires_grad
    frozen = Plan(groups=True, whitening=True, depths=(2, 3, 3)).build(10)
    assert type(frozen) is ImprovedCNN and not frozen.whitening.weight.requires_grad
    assert isinstance(frozen.groups[2], nn.Module) and len(frozen.groups[2].convs) == 2


def test_the_kept_table_is_of_these_steps() -> None:
    kept = read(Path(__file__).parents[2] / "service" / "static" / "homework" / "ablation.csv")
    steps = ladder(kept[0].epochs)
    assert [(row.step, row.definition) for row in kept] == [
        (step.name, step.definition()) for step in steps
    ]
    assert len({row.settings() for row in kept}) == 1
