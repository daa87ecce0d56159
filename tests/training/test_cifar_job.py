"""The classifier's jobs from pictures to a served artifact, on pictures made here."""

import argparse
import base64
import errno
import json
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient
from torch import Tensor

from contract import store
from contract.manifest import ClassifierManifest
from contract.pictures import decode, open_image
from contract.system import lock
from service.app import create_app
from service.settings import Settings
from training.__main__ import main
from training.data.images import load_images
from training.fit import checkpoint
from training.jobs import cifar
from training.networks.backbone import MEAN, STD, Backbone
from training.publish import classifier_artifact
from training.publish.classifier_artifact import data_record
from training.publish.published import classifier, images
from training.publish.saliency_checks import SaliencyFigures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour, not square, in train/ and test/."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for channel, label in enumerate(("blue", "green", "red")):
            place = folder / split / label
            place.mkdir(parents=True)
            for index in range(count):
                values = generator.integers(0, 120, (36, 48, 3), np.uint8)
                values[:, :, 2 - channel] += 100
                Image.fromarray(values).save(place / f"{index}.png")
    return folder


def train(pictures: Path, root: Path, *words: str) -> int:
    return main(
        [
            "cifar",
            "--network",
            "improved",
            "--preset",
            "quick",
            "--name",
            "colours",
            "--images",
            str(pictures),
            "--artifacts",
            str(root / "artifacts"),
            "--runs",
            str(root / "runs"),
            "--set",
            "batch=30",
            "--set",
            "sgd_lr=1.5",
            "--set",
            "head_lr=0.03",
            "--epochs",
            "3",
            "--side",
            "32",
            *words,
        ]
    )


@pytest.fixture(scope="module")
def published(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained and evaluated model ``colours``."""
    root = tmp_path_factory.mktemp("published")
    assert train(pictures, root) == 0
    arguments = ["evaluate", "colours", "--images", str(pictures)]
    assert main([*arguments, "--artifacts", str(root / "artifacts")]) == 0
    return root


def test_the_artifact_verifies_and_tells_its_figures(published: Path) -> None:
    root = published / "artifacts"
    assert store.list_versions(root, "colours") == [2, 1]
    trained, evaluated = (store.verify(root / "colours" / version) for version in "12")
    for artifact in (trained, evaluated):
        assert isinstance(artifact.manifest, ClassifierManifest)
        assert artifact.manifest.classes == ("blue", "green", "red")
    assert "test" not in trained.manifest.metrics["top1"]  # type: ignore[operator]
    assert evaluated.manifest.metrics["top1"]["test"] > 0.9  # type: ignore[index,call-overload]
    assert evaluated.manifest.data.splits == {"train": 162, "validation": 18, "test": 60}
    for name in ("probabilities.onnx", "probabilities.int8.onnx", "saliency.onnx"):
        assert trained.manifest.files[name] == evaluated.manifest.files[name]


def test_the_report_names_what_was_measured(published: Path) -> None:
    folder = published / "artifacts" / "colours" / "2"
    text = (folder / "report.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['scores']['test']['top1']:.2%}" in text
    assert "top-5" not in text  # of three classes it says nothing
    assert "Not done: 18 validation images are too few" in text
    assert "calibrated for pictures like those" not in text
    assert "reliability.png" not in text and not (folder / "reliability.png").exists()
    for plot in ("curves.png", "confusion.png"):
        assert plot in text
        with Image.open(folder / plot) as image:
            assert image.width > 300
    assert np.sum(metrics["confusion"]) == 60


def test_the_command_in_the_report_is_the_one_that_evaluates(
    published: Path, pictures: Path
) -> None:
    text = (published / "artifacts" / "colours" / "1" / "report.md").read_text()
    command = text.split("not been looked at yet: `")[1].split("`")[0]
    assert command == f"python -m training evaluate colours --images {pictures.name}"


def test_no_picture_of_the_data_is_published(published: Path) -> None:
    samples = np.load(published / "artifacts" / "colours" / "1" / "samples.npz")
    assert set(samples) == {
        "probabilities.image",
        "probabilities.probabilities",
        "saliency.image",
        "saliency.class",
        "saliency.saliency",
    }


def test_evaluating_with_other_images_is_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(20):
            colour = (index, index, 0 if label == "a" else 200)
            Image.new("RGB", (8, 8), colour).save(tmp_path / label / f"{index}.png")
    arguments = ["evaluate", "colours", "--images", str(tmp_path)]
    assert main([*arguments, "--artifacts", str(published / "artifacts")]) == 2
    assert "is not the data that colours was trained on" in capsys.readouterr().err


def interrupt_when(
    monkeypatch: pytest.MonkeyPatch, due: Callable[[checkpoint.Checkpoint], bool]
) -> None:
    """Ctrl-C right after the checkpoint that is ``due`` was kept."""
    save = checkpoint.save

    def interrupted(folder: Path, state: checkpoint.Checkpoint) -> None:
        save(folder, state)
        if due(state):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", interrupted)


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_when(monkeypatch, lambda state: len(state.history) == 2)
    monkeypatch.setattr(cifar, "LONG_MINUTES", 0)
    assert train(pictures, tmp_path) == 130
    said = capsys.readouterr()
    assert "--resume goes on" in said.err
    advice = "too long? Ctrl-C; the same command with --restart and fewer --epochs takes less\n"
    assert said.out.count(advice) == 1
    assert store.list_versions(tmp_path / "artifacts", "colours") == []
    monkeypatch.undo()
    assert train(pictures, tmp_path) == 2
    assert "--resume" in capsys.readouterr().err
    assert train(pictures, tmp_path, "--resume", "--no-publish") == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert store.list_versions(tmp_path / "artifacts", "colours") == []


def test_the_advice_is_what_would_be_shorter() -> None:
    parser = argparse.ArgumentParser()
    cifar.add_arguments(parser)
    for words, side, options in (
        ([], 32, "fewer --epochs or --preset quick takes"),
        ([], 224, "fewer --epochs or --preset quick or --side 64 takes"),
        (["--preset", "quick"], 64, "fewer --epochs takes"),
        (["--backbone", "resnet18"], 224, "fewer --epochs or --side 64 takes"),
    ):
        assert options in cifar._shorter(parser.parse_args(words), side)


def test_a_checkpoint_within_an_epoch_as_often_as_asked(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_when(monkeypatch, lambda state: state.batches == 2)
    words = ("--no-publish", "--epochs", "1")
    assert train(pictures, tmp_path, *words, "--checkpoint-minutes", "0") == 130
    assert "--resume goes on after batch 2 of epoch 1" in capsys.readouterr().err
    monkeypatch.undo()
    assert train(pictures, tmp_path, *words, "--checkpoint-minutes", "0.5", "--resume") == 0
    assert "epoch 1/1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train(pictures, tmp_path, "--checkpoint-minutes", "often")
    assert "'often' is no number of minutes" in capsys.readouterr().err


def test_one_run_at_a_time_in_a_folder(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "runs" / ".colours.lock"
    held.parent.mkdir()
    with held.open("ab") as stream:
        lock(stream)
        assert train(pictures, tmp_path, "--restart") == 2
    assert "runs/colours: another run is training here" in capsys.readouterr().err
    assert train(pictures, tmp_path, "--resume", "--no-publish", "--epochs", "1") == 0
    printed = capsys.readouterr().out
    assert "to go on from: it begins anew" in printed
    assert "3 classes (blue, green, red)" in printed


def test_a_full_disk_loses_nothing_and_says_what_is_kept(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Full while the second checkpoint is written, then while the model is published."""
    save_file = checkpoint.save_file

    def full_at_the_second(tensors: dict[str, Tensor], path: Path, words: dict[str, str]) -> None:
        save_file(tensors, path, words)
        if len(json.loads(words["history"])) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_second)
    assert train(pictures, tmp_path) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and "the checkpoint before it is kept" in error
    run = tmp_path / "runs" / "colours"
    assert [path.name for path in run.iterdir()] == [checkpoint.FILE]
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.jobs.cifar.write_artifact", full)
    assert train(pictures, tmp_path, "--resume") == 2
    error = capsys.readouterr().err
    assert "No space left on device; the training is kept: the same command with --resume" in error
    assert error.count("\n") == 1
    assert checkpoint.is_finished(run)
    assert [path.name for path in (tmp_path / "artifacts" / "colours").iterdir()] == [".lock"]


def test_a_wrong_option_costs_no_old_run(pictures: Path, tmp_path: Path) -> None:
    old = tmp_path / "runs" / "colours" / checkpoint.FILE
    old.parent.mkdir(parents=True)
    old.write_text("hours of training")
    for words in (["--images", "nowhere"], ["--set", "cutout=many"], ["--validation", "0"]):
        assert train(pictures, tmp_path, "--restart", *words) == 2
        assert old.read_text() == "hours of training"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere"], "no such folder or zip"),
        (["--device", "abacus"], "no such device"),
        (["--set", "cutout=many"], "not a number"),
        (["--set", "colour=1"], "NAME must be one of"),
        (["--set", "trained_share=0"], "above 0"),
        (["--set", "trained_share=nan"], "above 0"),
        (["--epochs", "0"], "at least 1"),
        (["--validation", "0"], "can be set aside for validation, not 0"),
        (["--name", "../up"], "lower-case letters"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str],
    message: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(pictures, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("manifest.json"))


def test_the_service_serves_it_at_once(published: Path, pictures: Path) -> None:
    with TestClient(create_app(Settings(artifacts=published / "artifacts"))) as client:
        while "being " in client.get("/health/ready").text:
            time.sleep(0.01)
        for label in ("blue", "green", "red"):
            answer = client.post(
                "/classify?model=colours&top_k=3",
                content=(pictures / "test" / label / "0.png").read_bytes(),
                headers={"content-type": "image/png"},
            ).json()
            assert answer["results"][0]["top"][0]["label"] == label, answer


def test_republished_it_has_the_same_weights_and_record(
    published: Path, pictures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    shutil.copytree(published / "artifacts", root)
    words = ["republish", "colours", "--images", str(pictures), "--artifacts", str(root)]
    assert main(words) == 0
    _, before = classifier(published / "artifacts", "colours")
    _, after = classifier(root, "colours")
    assert (before.version, after.version) == (2, 3)
    for name in ("checkpoint.safetensors", "history.csv"):
        assert after.files[name] == before.files[name]
    assert after.data == before.data
    assert after.classes == before.classes
    config = before.training.config | {"weights_of_version": 2}
    assert after.training == before.training.model_copy(update={"config": config})
    assert "test" not in after.metrics["top1"]  # type: ignore[operator]
    report = (root / "colours" / "3" / "report.md").read_text()
    assert "those of version 2, not trained again" in report


@pytest.mark.parametrize(("asked", "given"), [(None, False), (17, False), (None, True)])
def test_the_images_of_a_published_classifier_are_split_as_for_training(
    published: Path, tmp_path: Path, asked: int | None, given: bool
) -> None:
    """Classes of unequal size, of which the number of validation rows alone gives another split."""
    generator = np.random.default_rng(0)
    for split, counts in {"train": (24, 26, 25), "val": (4, 5, 6)}.items():
        for label, count in zip("abc", counts, strict=True):
            if split == "train" or given:
                (tmp_path / split / label).mkdir(parents=True)
            for index in range(count if split == "train" or given else 0):
                values = generator.integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(values).save(tmp_path / split / label / f"{index}.png")
    trained = load_images(tmp_path, validation=asked)
    _, manifest = classifier(published / "artifacts", "colours")
    asked_for = {} if asked is None else {"validation": asked}
    training = manifest.training.model_copy(update={"config": manifest.training.config | asked_for})
    of_these = {"data": data_record(trained), "training": training}
    found = images(manifest.model_copy(update=of_these), tmp_path, None)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(found, split).images, getattr(trained, split).images)


def test_a_map_that_fails_its_checks_is_not_published(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    falls, rises = [0.9, 0.1], [0.1, 0.9]
    figures = SaliencyFigures(32, [1.0], falls, rises, rises, falls)
    monkeypatch.setattr(classifier_artifact, "check_saliency", lambda *_: figures)
    assert train(pictures, tmp_path, "--epochs", "1") == 0
    assert "saliency is not published: it hardly depends on the weights" in capsys.readouterr().out
    folder = tmp_path / "artifacts" / "colours" / "1"
    assert not list(folder.glob("saliency*.onnx"))
    assert "hardly depends on the weights" in (folder / "report.md").read_text()
    picture = (pictures / "test" / "red" / "0.png").read_bytes()
    with TestClient(create_app(Settings(artifacts=tmp_path / "artifacts"))) as client:
        while "being " in client.get("/health/ready").text:
            time.sleep(0.01)
        statuses = {
            path: client.post(f"/{path}", files={"file": ("red.png", picture)}).status_code
            for path in ("classify", "explain")
        }
        assert statuses == {"classify": 200, "explain": 404}


def test_another_side_and_proportions_reach_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three classes of few wide pictures, told apart by what a central square cuts off."""
    generator = np.random.default_rng(0)
    for channel, label in enumerate(("blue", "green", "red")):
        (tmp_path / "my photos" / label).mkdir(parents=True)
        for index in range(12 if channel else 40):
            values = generator.integers(0, 60, (44, 132, 3), np.uint8)
            values[:, :40, 2 - channel] += 150
            Image.fromarray(values).save(tmp_path / "my photos" / label / f"{index}.png")
    words = ["cifar", "--preset", "quick", "--images", str(tmp_path / "my photos"), "--balance"]
    words += ["--resize", "squash", "--epochs", "6", "--runs", str(tmp_path / "runs")]
    assert main([*words, "--artifacts", str(tmp_path / "artifacts")]) == 0
    printed = capsys.readouterr().out
    assert "each picture becomes 64×64 pixels" in printed
    steps = ("reading", "training", "finding", "exporting", "making", "measuring", "checking")
    said = [line.split() for line in printed.splitlines()]
    begun = [next(n for n, line in enumerate(said) if line[0] == step) for step in steps]
    assert begun == sorted(begun)
    assert f"--images '{tmp_path / 'my photos'}'" in printed
    artifact, _ = store.newest_good(tmp_path / "artifacts", "my-photos")
    assert isinstance(artifact.manifest, ClassifierManifest)
    assert artifact.manifest.resize == "squash"
    assert artifact.manifest.functions["probabilities"].inputs[0].shape == ("n", 64, 64, 3)
    report = (artifact.folder / "report.md").read_text()
    assert "squashed to a square and becomes 64×64" in report
    photo = (tmp_path / "my photos" / "red" / "0.png").read_bytes()
    with TestClient(create_app(Settings(artifacts=tmp_path / "artifacts"))) as client:
        while "being " in client.get("/health/ready").text:
            time.sleep(0.01)
        answer = client.post(
            "/explain?model=my-photos", content=photo, headers={"content-type": "image/png"}
        ).json()
    seen = Image.open(BytesIO(base64.b64decode(answer["seen"].partition(",")[2])))
    expected = decode(open_image(photo, 10**6, 10**4), 64, "squash").pixels
    assert (np.asarray(seen.convert("RGB")) == expected).all()


def test_the_homeworks_network_is_for_32_pixels(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(pictures, tmp_path, "--network", "baseline", "--side", "64") == 2
    assert "for 32×32 pixels" in capsys.readouterr().err


def draw(shape: str, generator: np.random.Generator) -> Image.Image:
    """A circle, square or triangle somewhere on noise."""
    image = Image.fromarray(generator.integers(0, 80, (40, 40, 3), np.uint8))
    x, y, reach = generator.uniform((14, 14, 8), (26, 26, 14))
    colour = tuple(generator.integers(150, 256, 3).tolist())
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    elif shape == "square":
        pen.rectangle((x - reach, y - reach, x + reach, y + reach), fill=colour)
    else:
        pen.polygon([(x, y - reach), (x - reach, y + reach), (x + reach, y + reach)], fill=colour)
    return image


def test_a_backbone_from_its_weights_to_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torchvision's own network with weights from a file (random ones): what is served is it."""
    from torchvision import models

    # So little training makes no map worth showing, which its own tests are about.
    low, high = [0.1, 0.1], [0.9, 0.9]
    passed = SaliencyFigures(32, [0.1], low, high, high, low)
    monkeypatch.setattr(classifier_artifact, "check_saliency", lambda *_: passed)
    generator = np.random.default_rng(0)
    for shape in ("circle", "square", "triangle"):
        (tmp_path / "shapes" / shape).mkdir(parents=True)
        for index in range(4):
            draw(shape, generator).save(tmp_path / "shapes" / shape / f"{index}.png")
    torch.manual_seed(0)
    pretrained = models.get_model("mobilenet_v3_small", weights=None)
    weights = tmp_path / "weights.safetensors"
    save_file(pretrained.state_dict(), weights)
    words = ["cifar", "--images", str(tmp_path / "shapes"), "--side", "32", "--epochs", "2"]
    words += ["--backbone", "mobilenet_v3_small", "--weights", str(weights)]
    words += ["--set", "head_epochs=1"]
    words += ["--artifacts", str(tmp_path / "artifacts"), "--runs", str(tmp_path / "runs")]
    assert main(words) == 0, capsys.readouterr()
    folder = tmp_path / "artifacts" / "shapes" / "1"
    network = Backbone("mobilenet_v3_small", 3, None)
    state = load_file(folder / "checkpoint.safetensors")
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    )
    trained = sum(
        not torch.equal(value, pretrained.state_dict()[name])
        for name, value in network.net.state_dict().items()
        if name in pretrained.state_dict() and value.shape == pretrained.state_dict()[name].shape
    )
    assert trained > 10  # layers below the head, in the second epoch
    picture = (tmp_path / "shapes" / "circle" / "0.png").read_bytes()
    with TestClient(create_app(Settings(artifacts=tmp_path / "artifacts"))) as client:
        while "being " in client.get("/health/ready").text:
            time.sleep(0.01)
        told = client.post("/classify?model=shapes", files={"file": picture})
        shown = client.post("/explain?model=shapes", files={"file": picture})
    assert (told.status_code, shown.status_code) == (200, 200), (told.text, shown.text)
    pixels = torch.from_numpy(decode(open_image(picture, 10**6, 10**4), 32).pixels.copy())
    image = pixels.permute(2, 0, 1)[None] / 255 - torch.tensor(MEAN).reshape(1, 3, 1, 1)
    with torch.no_grad():
        logits = network.eval()(image / torch.tensor(STD).reshape(1, 3, 1, 1))
    expected = logits.softmax(1)[0].tolist()
    found = {each["label"]: each["probability"] for each in told.json()["results"][0]["top"]}
    artifact, _ = store.newest_good(tmp_path / "artifacts", "shapes")
    (int8,) = artifact.manifest.functions["probabilities"].variants  # may be what serves
    assert [found[label] for label in ("circle", "square", "triangle")] == pytest.approx(
        expected, abs=1e-3 + int8.agreement.absolute_tolerance
    )
