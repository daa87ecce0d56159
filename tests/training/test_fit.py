"""The training loop and its parts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.data.images import Split
from training.errors import JobError
from training.fit import augment, checkpoint, loop
from training.fit.checkpoint import Epoch
from training.fit.device import choose_device
from training.fit.evaluate import score
from training.fit.hard_examples import LEARNS_EVERY, LEARNS_FIRST, HardExampleSelector
from training.fit.loop import Fitted, fit
from training.fit.optim import orthogonalise, schedule
from training.fit.presets import BASELINE, IMPROVED
from training.fit.recipe import Recipe
from training.networks.backbone import Backbone, read_weights
from training.networks.cnn_baseline import BaselineCNN
from training.networks.cnn_improved import ImprovedCNN
from training.publish.parameters import summarise

SMALL = IMPROVED.with_changes(
    trained_share=1.0,
    epochs=4,
    batch=32,
    sgd_lr=2.0,
    head_lr=0.05,
    whitening_bias_epochs=2,
    average=0.9,
)


def two_classes(rows: int = 96) -> Split:
    """Bright pictures against dark ones, with noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % 2
    images = torch.randint(0, 128, (rows, 3, 32, 32), generator=generator)
    return Split((images + 127 * labels[:, None, None, None]).to(torch.uint8), labels)


def train(
    recipe: Recipe,
    folder: Path | None = None,
    stop_after: int | None = None,
    on_batch: Callable[[int, int], None] = lambda *_: None,
    keep_seconds: float = 600.0,
) -> Fitted:
    torch.manual_seed(7)
    network = ImprovedCNN(2, widths=(8, 8, 8), depths=(1, 2, 2))

    def on_epoch(row: Epoch) -> None:
        if row.epoch == stop_after:
            raise KeyboardInterrupt

    split = two_classes()
    return fit(
        network,
        split,
        split,
        recipe,
        seed=3,
        device=choose_device("cpu"),
        folder=folder,
        on_epoch=on_epoch,
        on_batch=on_batch,
        keep_seconds=keep_seconds,
    )


def test_it_learns() -> None:
    assert train(SMALL).history[-1].validation_top1 > 0.95


@pytest.mark.parametrize("trained_share", [1.0, 0.5])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, stop_after: int, trained_share: float
) -> None:
    recipe = SMALL.with_changes(
        trained_share=trained_share, batch=round(32 * trained_share), cutmix=0.5
    )
    whole = train(recipe)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, stop_after)
    resumed = train(recipe, tmp_path)
    assert [row.epoch for row in resumed.history] == [1, 2, 3, 4]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_run_goes_on_within_an_epoch(tmp_path: Path) -> None:
    recipe = SMALL.with_changes(epochs=2)
    whole = train(recipe)
    batches = []

    def stop(batch: int, _: int) -> None:
        batches.append(batch)
        if len(batches) == 5:  # the second batch of the second epoch; the first one is kept
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, on_batch=stop, keep_seconds=0)
    saved = checkpoint.read(tmp_path)
    assert saved is not None
    assert (len(saved.history), saved.batches) == (1, 1)
    resumed = train(recipe, tmp_path)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert resumed.history[1].train_loss == whole.history[1].train_loss
    assert resumed.history[1].train_top1 == whole.history[1].train_top1


class Runs:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_backbone_starts_from_its_weights_and_trains_its_head_first(tmp_path: Path) -> None:
    from torchvision import models

    pretrained = models.get_model("mobilenet_v3_small", weights=None)
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    network = Backbone("mobilenet_v3_small", 3, tmp_path / "weights.pth")
    first = "features.0.0.weight"
    assert torch.equal(network.net.get_parameter(first), pretrained.get_parameter(first))
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    network.train_head_only(True)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"net.classifier.3.weight", "net.classifier.3.bias"}
    network.train_head_only(False)
    assert all(p.requires_grad for p in network.parameters())
    with pytest.raises(JobError, match="not the weights of resnet18"):
        Backbone("resnet18", 3, tmp_path / "weights.pth")
    torch.save({"weight": Runs(tmp_path / "ran")}, tmp_path / "runs.pth")
    with pytest.raises(JobError, match="more than tensors"):
        read_weights(tmp_path / "runs.pth")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "bad.pth").write_bytes(b"junk")
    with pytest.raises(JobError, match="--weights"):
        read_weights(tmp_path / "bad.pth")


@pytest.mark.parametrize("side", [64, 96, 224])
def test_larger_pictures_cost_little_more(side: int) -> None:
    network = ImprovedCNN(10, widths=(8, 8, 8), depths=(1, 1, 1), side=side)
    network.prepare(torch.randn(4, 3, side, side))
    assert network.eval()(torch.randn(2, 3, side, side)).shape == (2, 10)
    release = summarise(ImprovedCNN(side=side), torch.zeros(2, 3, side, side)).multiply_adds
    assert release < 2 * 115e6


def test_an_adamw_run_resumes_too(tmp_path: Path) -> None:
    recipe = BASELINE.with_changes(epochs=2, batch=32)
    whole = train(recipe)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, 1)
    resumed = train(recipe, tmp_path)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(SMALL, tmp_path)
    assert checkpoint.is_finished(tmp_path)
    again = train(SMALL, tmp_path)
    assert again.history == first.history
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(SMALL, tmp_path)
    with pytest.raises(JobError, match="differs in lr"):
        train(SMALL.with_changes(lr=0.1), tmp_path)
    (tmp_path / checkpoint.FILE).write_bytes(b"garbage")
    with pytest.raises(JobError, match="not a checkpoint"):
        train(SMALL, tmp_path)


def test_the_judge_finds_the_images_that_it_gets_wrong() -> None:
    recipe = SMALL.with_changes(trained_share=0.25)
    split = two_classes(128)
    images = split.images.float() / 64 - 2
    torch.manual_seed(1)
    selector = HardExampleSelector(images, 2, recipe, choose_device("cpu"))
    for step in range(LEARNS_FIRST):
        batch = torch.randperm(128)
        lr_factor = 1 - step / LEARNS_FIRST
        assert len(selector.hardest(images[batch], split.labels[batch], step, lr_factor)) == 32
    mislabelled = torch.tensor([3, 40, 77, 126])
    labels = split.labels.clone()
    labels[mislabelled] = 1 - labels[mislabelled]
    before = {name: value.clone() for name, value in selector.network.named_parameters()}
    judging = LEARNS_FIRST + 1
    assert judging % LEARNS_EVERY
    chosen = selector.hardest(images, labels, judging, lr_factor=1.0)
    assert len(chosen) == len(set(chosen.tolist())) == 32
    assert set(mislabelled.tolist()) <= set(chosen.tolist())
    for name, value in selector.network.named_parameters():
        assert torch.equal(value, before[name]), f"{name} was trained at a step for judging only"
    selector.hardest(images, labels, judging + LEARNS_EVERY - judging % LEARNS_EVERY, lr_factor=1.0)
    assert any(not torch.equal(v, before[name]) for name, v in selector.network.named_parameters())


@pytest.mark.parametrize(("share", "steps"), [(1.0, 3), (0.5, 1), (0.25, 1)])
def test_an_epoch_shows_every_image_to_the_network_or_the_judge(share: float, steps: int) -> None:
    seen: list[tuple[int, int]] = []
    recipe = SMALL.with_changes(epochs=1, trained_share=share)
    train(recipe, on_batch=lambda batch, batches: seen.append((batch, batches)))
    assert seen == [(batch + 1, steps) for batch in range(steps)]


def test_a_balanced_epoch_shows_every_class_equally_often() -> None:
    labels = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    generator = torch.Generator().manual_seed(0)
    plain = loop._order(labels, generator, balanced=False)
    assert plain.sort().values.tolist() == list(range(10_000))
    drawn = torch.bincount(labels[loop._order(labels, generator, balanced=True)])
    assert drawn.sum() == 10_000
    assert (drawn - 10_000 / 3).abs().max() < 5 * (10_000 * 2 / 9) ** 0.5  # standard deviations


def test_the_mean_over_classes_counts_each_class_once() -> None:
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    found = score(probabilities, np.array([0, 0, 0, 1]))
    assert (found.top1, found.balanced) == (0.75, 0.5)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(JobError, match="the loss is"):
        train(SMALL.with_changes(sgd_lr=1e30, head_lr=1e30, whitening_bias_epochs=9))


def test_alternating_flip_shows_every_image_both_ways_in_two_epochs() -> None:
    images = torch.rand(10, 3, 4, 4)
    first = torch.rand(10) < 0.5
    even, odd = (augment.alternating_flip(images, first, epoch) for epoch in (0, 1))
    for index in range(10):
        shown = {bool(torch.equal(view[index], images[index])) for view in (even, odd)}
        assert shown == {True, False}


def test_translate_moves_by_whole_pixels_and_mirrors_the_edge() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    moved = augment.translate(images, 2, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    for index in range(2):
        padded = np.pad(images[index].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
        places = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(moved[index].numpy(), padded[:, row : row + 8, column : column + 8])
        ]
        assert len(places) == 1


def test_cutout_blanks_at_most_a_square() -> None:
    images = torch.ones(50, 3, 32, 32)
    blank = augment.cutout(images, 8, torch.Generator().manual_seed(0)) == 0
    assert int(blank[:, 0].sum((1, 2)).max()) == 64
    assert int(blank[:, 0].sum((1, 2)).min()) > 0
    assert torch.equal(blank[:, 0], blank[:, 2])


def test_cutmix_pastes_one_rectangle_of_the_neighbour_and_tells_its_share() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    shares = []
    for _ in range(200):
        mixed, share = augment.cutmix(images, generator)
        pasted = mixed != images
        assert torch.equal(mixed[pasted], images.roll(1, 0)[pasted])
        assert torch.equal(pasted, pasted[:1, :1].expand_as(pasted))
        assert pasted[0, 0].float().mean().item() == pytest.approx(share)
        rows, columns = pasted[0, 0].any(1).sum(), pasted[0, 0].any(0).sum()
        assert rows * columns == pasted[0, 0].sum()
        shares.append(share)
    assert min(shares) < 0.05
    assert max(shares) > 0.95
    assert sum(shares) / 200 == pytest.approx(0.5, abs=0.08)


def test_it_learns_from_mixed_images() -> None:
    assert train(SMALL.with_changes(cutmix=0.5, epochs=8)).history[-1].validation_top1 > 0.95


def test_orthogonalise_gives_singular_values_near_one() -> None:
    matrix = torch.randn(40, 90, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix, steps=5))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_schedule_rises_to_one_and_falls_to_zero() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[10] == 1.0
    assert factors[100] == 0.0


def test_the_baseline_is_the_table() -> None:
    parameters = summarise(BaselineCNN(), torch.zeros(1, 3, 32, 32))
    counts = [layer.count for layer in parameters.layers if layer.count]
    assert counts == [896, 18_496, 2_098_176, 1_049_600, 10_250]
    assert parameters.total == 3_177_418
    assert 6.39e6 < parameters.multiply_adds < 6.41e6
    shapes = [layer.output_shape for layer in parameters.layers if layer.type == "Conv2d"]
    assert shapes == [(32, 32, 32), (64, 16, 8)]


def test_the_improved_network_keeps_to_its_budget() -> None:
    parameters = summarise(ImprovedCNN(), torch.zeros(1, 3, 32, 32))
    assert parameters.multiply_adds <= 120e6


def test_folding_batchnorm_changes_nothing() -> None:
    torch.manual_seed(0)
    network = ImprovedCNN(10, widths=(8, 16, 16))
    images = torch.randn(64, 3, 32, 32)
    network.prepare(images)
    network.train()(images)  # gives the BatchNorms statistics
    network.eval()
    folded = network.folded()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        assert torch.allclose(network(images), folded(images), atol=1e-5)


def test_whitening_makes_patches_uncorrelated() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 34, 34, generator=generator), 3, 1)
    network = ImprovedCNN(10, widths=(8, 8, 8))
    network.prepare(images)
    with torch.no_grad():
        outputs = network.whitening(images)[:, :12].permute(1, 0, 2, 3).reshape(12, -1)
    covariance = torch.cov(outputs)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=0.02)
    assert float(covariance.diagonal().max()) < 1.05


def test_an_unknown_device_is_said_in_one_line() -> None:
    with pytest.raises(JobError, match="no such device"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(JobError, match="sees 0 GPUs"):
            choose_device("cuda")


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_the_sums_of_an_interrupted_epoch_go_where_the_network_is() -> None:
    network = torch.nn.Linear(2, 2, device="meta")  # any device but the CPU, where they were read
    run = loop._Run(network, None, [], None, None, None)
    names = ("loss", "hits", "generator", "torch")
    tensors = {f"within.{name}": torch.zeros(1) for name in names}
    tensors |= {"network.weight": torch.zeros(2, 2), "network.bias": torch.zeros(2)}
    loop._restore(run, checkpoint.Checkpoint(tensors, [], {}, [], batches=3))
    assert run.within is not None
    found = {name: getattr(run.within, name).device.type for name in names}
    assert found == {"loss": "meta", "hits": "meta", "generator": "cpu", "torch": "cpu"}
