"""Learning from a larger network."""

from pathlib import Path

import pytest
import torch

from tests.training.test_fit import SMALL, two_classes
from training.__main__ import main
from training.errors import JobError
from training.fit import checkpoint
from training.fit.checkpoint import Checkpoint, Epoch
from training.fit.device import choose_device
from training.fit.loop import fit
from training.fit.presets import preset
from training.fit.teacher import (
    KeptAnswers,
    distillation_loss,
    load_teacher,
    load_teachers,
    provenance,
)
from training.networks.classifier import make_classifier
from training.networks.cnn_improved import ImprovedCNN

IDENTITY = {"network": "fast", "data": "abc", "split_seed": 0}


def keep_run(folder: Path, network: torch.nn.Module, part: str = "published") -> None:
    tensors = {f"{part}.{name}": value for name, value in network.state_dict().items()}
    checkpoint.save(folder, Checkpoint(tensors, [], IDENTITY, ["cpu"]))


def test_the_loss_is_least_where_both_answer_alike() -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    assert distillation_loss(logits, logits + 3).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits, -logits) > 0.1


def test_a_pupil_answers_as_its_teacher_does_whatever_the_labels() -> None:
    split = two_classes()

    class Contrary(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            bright = images.mean((1, 2, 3))
            return torch.stack((bright, -bright), 1) * 10  # bright is class 0: labels say class 1

    torch.manual_seed(7)
    pupil = ImprovedCNN(2, (8, 8, 8), (1, 2, 2), torch.nn.ReLU)
    fitted = fit(
        pupil,
        split,
        split,
        SMALL.with_changes(teacher_share=1.0, epochs=8),
        seed=0,
        device=choose_device("cpu"),
        teacher=Contrary(),
    )
    assert fitted.history[-1].validation_top1 < 0.1


def test_a_teacher_is_a_finished_run_on_the_same_images(tmp_path: Path) -> None:
    network = make_classifier("fast", "release", 10).eval()
    with pytest.raises(JobError, match="no finished run"):
        load_teacher(tmp_path, 10, IDENTITY)
    keep_run(tmp_path, network, part="network")
    with pytest.raises(JobError, match="no finished run"):
        load_teacher(tmp_path, 10, IDENTITY)
    keep_run(tmp_path, network)
    with pytest.raises(JobError, match="differs in data"):
        load_teacher(tmp_path, 10, IDENTITY | {"data": "other"})
    teacher = load_teacher(tmp_path, 10, IDENTITY)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher(images), network(images))


def test_a_teacher_without_a_share_is_refused() -> None:
    split = two_classes()
    with pytest.raises(JobError, match="go together"):
        fit(
            ImprovedCNN(2, (8, 8, 8), (1, 2, 2)),
            split,
            split,
            SMALL,
            seed=0,
            device=choose_device("cpu"),
            teacher=ImprovedCNN(2, (8, 8, 8), (1, 2, 2)),
        )


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("--network fast", "this recipe learns from other networks"),
        ("--network fast --set teacher_share=0.5", "this recipe learns from other networks"),
        ("--network improved --set teacher_share=0.5", "this recipe learns from other networks"),
        ("--network improved --preset hour --teacher runs/a", "takes nothing from a teacher"),
        ("--network baseline --teacher runs/a runs/b", "takes nothing from a teacher"),
        ("--network fast --preset quick --teacher runs/a", "has one recipe"),
        ("--network wide --preset hour", "has one recipe"),
    ],
)
def test_options_that_leave_a_teacher_out_or_need_none_are_refused_at_once(
    tmp_path: Path, options: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ["--images", str(tmp_path / "none"), "--runs", str(tmp_path / "runs")]
    assert main(["cifar", *options.split(), *images]) != 0
    assert refused in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folded_relu_network_computes_the_same() -> None:
    torch.manual_seed(0)
    network = ImprovedCNN(10, (8, 16, 16), (2, 2, 3), torch.nn.ReLU).train()
    images = torch.randn(16, 3, 32, 32)
    network(images)  # moves the running statistics away from their start
    expected = network.eval()(images)
    assert torch.allclose(network.folded()(images), expected, atol=1e-5)


def test_answers_are_kept_for_the_epochs_that_repeat_a_copy(tmp_path: Path) -> None:
    split = two_classes()
    recipe = SMALL.with_changes(teacher_share=1.0, teacher_copies=2, epochs=6, trained_share=1.0)
    asked = []

    class Counting(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            bright = images.mean((1, 2, 3))
            return torch.stack((bright, -bright), 1) * 10

    def train(epochs: int, folder: Path | None) -> torch.nn.Module:
        torch.manual_seed(7)
        return fit(
            ImprovedCNN(2, (8, 8, 8), (1, 2, 2), torch.nn.ReLU),
            split,
            split,
            recipe.with_changes(epochs=epochs),
            seed=0,
            device=choose_device("cpu"),
            teacher=Counting(),
            folder=folder,
        ).network

    steps = len(split) // recipe.batch
    first = train(6, tmp_path)
    assert len(asked) == 2 * steps  # of six epochs
    kept = sorted((tmp_path / "teacher").iterdir())
    assert len(kept) == 2
    checkpoint_file = next(path for path in tmp_path.iterdir() if path.is_file())
    checkpoint_file.unlink()
    second = train(6, tmp_path)
    assert len(asked) == 2 * steps  # read from disk
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    checkpoint_file.unlink()
    train(4, tmp_path)  # of another recipe: none of its own yet
    assert len(asked) == 4 * steps


def test_kept_answers_need_all_images() -> None:
    split = two_classes()
    with pytest.raises(JobError, match="trained_share=1"):
        fit(
            ImprovedCNN(2, (8, 8, 8), (1, 2, 2)),
            split,
            split,
            SMALL.with_changes(teacher_share=0.5, teacher_copies=2, trained_share=0.5),
            seed=0,
            device=choose_device("cpu"),
            teacher=ImprovedCNN(2, (8, 8, 8), (1, 2, 2)),
        )


def test_several_teachers_answer_with_their_mean(tmp_path: Path) -> None:
    networks = [make_classifier("fast", "release", 10).eval() for _ in range(2)]
    for name, network in zip("ab", networks, strict=True):
        keep_run(tmp_path / name, network)
    teacher = load_teachers([tmp_path / "a", tmp_path / "b"], 10, IDENTITY)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = (networks[0](images) + networks[1](images)) / 2
    assert torch.allclose(teacher(images), expected, atol=1e-5)


def test_the_manifest_tells_of_the_teachers(tmp_path: Path) -> None:
    network = make_classifier("fast", "release", 10)
    tensors = {f"published.{name}": value for name, value in network.state_dict().items()}
    history = [Epoch(1, 2.0, 1.5, 0.4, 0.9, 10.0), Epoch(2, 1.0, 1.2, 0.5, 0.95, 12.5)]
    checkpoint.save(tmp_path, Checkpoint(tensors, history, IDENTITY, ["cpu"]))
    assert provenance(tmp_path) == {
        "network": "fast",
        "epochs": 2,
        "wall_seconds": 22.5,
        "device": "cpu",
        "validation_top1": 0.5,
    }
    with pytest.raises(JobError, match="no finished run"):
        provenance(tmp_path / "none")


def test_the_released_recipe_needs_no_teacher_and_has_one_for_it() -> None:
    assert preset("improved", "release").teacher_share == 0
    assert preset("improved", "release", taught=True).teacher_copies == 24
    assert preset("improved", "hour", taught=True) == preset("improved", "hour")


def test_with_bfloat16_the_same_time_is_enough_for_more_epochs() -> None:
    released = preset("improved", "release")
    for name in ("hour", "quick"):
        slow, fast = (preset("improved", name, bfloat16=found) for found in (False, True))
        assert slow.epochs < fast.epochs <= released.epochs
    assert preset("improved", "hour", bfloat16=True) == released
    assert preset("improved", "release", bfloat16=True) == released


def test_answers_that_are_damaged_or_cannot_be_kept_are_asked_for_again(tmp_path: Path) -> None:
    answers = torch.arange(6.0).reshape(2, 3)
    KeptAnswers(tmp_path, IDENTITY, "0 of 1").put(0, 0, answers, 1)
    again = KeptAnswers(tmp_path, IDENTITY, "0 of 1").get(0, 0)
    assert again is not None and torch.equal(again, answers)
    (file,) = (tmp_path / "teacher").iterdir()
    file.write_bytes(file.read_bytes()[:20])
    damaged = KeptAnswers(tmp_path, IDENTITY, "0 of 1")
    assert damaged.get(0, 0) is None
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the folder should be")
    damaged.put(0, 0, answers, 1)  # training goes on
    assert damaged.get(0, 0) is not None
