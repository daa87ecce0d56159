"""One's own classifier, and a ready ONNX file, as artifacts that the service takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from contract import signatures
from contract.manifest import ClassifierManifest
from gradserve import Publication, publish
from service.runtime.loader import load
from service.settings import Settings
from training.errors import JobError
from training.functions import own_classifier, publisher
from training.functions.exported import export_plan
from training.functions.imported import import_onnx
from training.publish.agreement import GraphRunner

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_a_classifier_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    asked = Publication(
        network, classes=["a", "b", "c"], image_side=8, mean=MEAN, std=STD,
        derivatives=("saliency",),
    )  # fmt: skip
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    random = np.random.default_rng(0)
    for index in range(16):
        pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{index}.png")
    (pictures / "notes.txt").write_text("no picture")
    artifact = publish(asked, "own", tmp_path / "artifacts", int8=pictures)
    assert isinstance(artifact.manifest, ClassifierManifest)
    found = signatures.classifier(artifact.manifest)
    assert (found.side, found.classes, found.saliency) == (8, ("a", "b", "c"), "saliency")
    assert [g.precision for g in artifact.manifest.functions["probabilities"].variants] == ["int8"]
    image = random.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    x = (torch.from_numpy(image).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / (
        torch.tensor(STD)[:, None, None]
    )
    x.requires_grad_(True)
    network.eval()
    logits = network(x)
    run = GraphRunner(artifact.folder / "probabilities.onnx")
    expected = logits.softmax(1).detach().numpy()
    np.testing.assert_allclose(run({"image": image})["probabilities"], expected, atol=1e-6)
    labels = np.array([0, 1, 2, 0, 1])
    logits[torch.arange(5), torch.from_numpy(labels)].sum().backward()
    assert x.grad is not None
    maps = GraphRunner(artifact.folder / "saliency.onnx")({"image": image, "class": labels})
    np.testing.assert_allclose(maps["saliency"], x.grad.norm(dim=1).numpy(), atol=1e-5)
    loaded = load(artifact.folder, Settings())
    assert set(loaded.functions) == {"probabilities", "saliency"}
    # The variant's tolerance is one that the service accepts, and its samples agree within it.
    assert not any(
        words in reason
        for reason in loaded.functions["probabilities"].refused
        for words in ("tolerance", "differs")
    )
    # Untrained: the map is of these weights; more than that can't be said, and is said not to be.
    text = (artifact.folder / "report.md").read_text()
    assert "## Is the saliency map one of this network?" in text
    assert "**Here they say nothing**" in text
    found = json.loads((artifact.folder / "metrics.json").read_text())["saliency"]
    assert found["failures"] == []
    assert found["correlation"][-1] < 0.7


class HalfDarkened(nn.Module):
    """It writes through a view, as PyTorch itself does where a linear layer's input isn't
    contiguous: autograd's derivative of that is made of strides, which ONNX doesn't have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        x[:, :, ::2] *= 0.5
        return torch.tanh(self.layer(x.flatten(1)))


def small_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    network = VisionTransformer(4, 2, 1, 2, 8, 16, num_classes=3)
    nn.init.normal_(network.heads[-1].weight)  # zero at first, and then so is every derivative
    return network


@pytest.mark.parametrize("make", [HalfDarkened, small_transformer])
def test_maps_of_networks_that_write_through_views(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    asked = Publication(make(), classes=["a", "b", "c"], image_side=4, derivatives=("saliency",))
    plans, examples = own_classifier.plans(asked)
    (plan,) = (each for each in plans if each.name == "saliency")
    checked = export_plan(plan, examples, tmp_path).checked
    assert checked.relative_error < 1e-5
    assert checked.samples["saliency.saliency"].max() > 1e-3


class Brightness(nn.Module):
    """Its weights are all alike: shuffled they are the same, and so is the map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x.square() * self.weight[:, None, None]).mean((1, 2, 3))
        return torch.stack([score, -score], 1)


def test_a_map_that_ignores_the_weights_is_not_published(tmp_path: Path) -> None:
    asked = Publication(
        Brightness(), classes=["bright", "dark"], image_side=8, derivatives=("saliency",)
    )
    with pytest.raises(JobError, match="hardly depends on the weights"):
        publish(asked, "brightness", tmp_path)
    assert not (tmp_path / "brightness" / "1").exists()
    artifact = publish(asked, "brightness", tmp_path, skip_failing=True)
    assert set(artifact.manifest.functions) == {"probabilities"}
    assert not (artifact.folder / "saliency.onnx").exists()
    text = (artifact.folder / "report.md").read_text()
    assert "- not published: saliency: the map fails its checks" in text
    assert "**Not published**: it hardly depends on the weights" in text
    assert "Deletion and insertion were not tried" in text


def test_the_pictures_for_int8_are_looked_at_before_anything_is_exported(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    asked = Publication(network, classes=["a", "b"], image_side=8)
    said: list[str] = []
    for folder, words in (("missing", "is not a folder"), (".", "has 0 readable pictures")):
        with pytest.raises(JobError, match=words):
            publish(asked, "own", tmp_path / "artifacts", int8=tmp_path / folder, say=said.append)
        with pytest.raises(JobError, match=words):
            publisher.check(asked, int8=tmp_path / folder, say=said.append)
    no_classifier = Publication(torch.sin, {"x": torch.rand(8)})
    with pytest.raises(JobError, match="int8 is for classifiers"):
        publisher.check(no_classifier, int8=tmp_path, say=said.append)
    assert said == []
    assert list(tmp_path.iterdir()) == []


def onnx_file(path: Path, *, rows: str | int = "batch", width: str | int = 3) -> Path:
    """y = 2x, with the sizes given."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, width])
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def test_an_onnx_file(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "double.onnx")
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.arange(12, dtype=np.float32).reshape(4, 3))
    artifact = import_onnx(file, "double", tmp_path / "artifacts", samples=samples)
    value = artifact.manifest.functions["value"]
    assert [(t.name, t.shape) for t in (*value.inputs, *value.outputs)] == [
        ("x", ("n", 3)),
        ("y", ("n", 3)),
    ]
    assert set(load(artifact.folder, Settings()).functions) == {"value"}
    fixed = import_onnx(onnx_file(file, rows=2), "double", tmp_path / "artifacts")
    assert fixed.manifest.functions["value"].inputs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("sizes", "samples", "words"),
    [
        ({"width": "w"}, None, r"size 1 of input x is open \(w\)"),
        ({}, {"z": np.ones((4, 3), np.float32)}, "has z; file.onnx takes x"),
        ({}, {"x": np.ones((4, 2), np.float32)}, r"it should be float32\['n', 3\]"),
        ({}, {"x": np.full((4, 3), np.nan, np.float32)}, "isn't finite"),
    ],
)
def test_an_onnx_file_that_cannot_be(
    tmp_path: Path, sizes: dict[str, str], samples: dict[str, np.ndarray] | None, words: str
) -> None:
    file = onnx_file(tmp_path / "file.onnx", **sizes)
    if samples:
        np.savez(tmp_path / "samples.npz", **samples)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=words):
        import_onnx(
            file, "x", tmp_path / "a", samples=tmp_path / "samples.npz" if samples else None
        )
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(JobError, match="is not a valid ONNX model"):
        import_onnx(tmp_path / "junk.onnx", "x", tmp_path / "a")


def graph_of(
    operator: str, sizes: list[Any] | None, *, kind: int = TensorProto.FLOAT, **options: Any
) -> onnx.ModelProto:
    """One operator from x to y, whose sizes the file does not tell."""
    x = helper.make_tensor_value_info("x", kind, sizes)
    y = helper.make_tensor_value_info("y", kind, None)
    node = helper.make_node(operator, ["x"], ["y"], **options)
    graph = helper.make_graph([node], "one", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def sequence() -> onnx.ModelProto:
    """What a classifier of scikit-learn gives by default is of this kind."""
    model = graph_of("SplitToSequence", ["n", 3], axis=1)
    wanted = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(wanted)
    return model


def without_inputs() -> onnx.ModelProto:
    """Its only input is a constant."""
    model = graph_of("Relu", [2])
    model.graph.initializer.append(helper.make_tensor("x", TensorProto.FLOAT, [2], [1.0, 2.0]))
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (without_inputs(), "has no inputs"),
        (sequence(), r"output y is no tensor \(sequence_type\).*'zipmap': False"),
        (graph_of("Relu", None), "input x has no sizes"),
        (graph_of("Relu", ["n", 0]), r"size 1 of input x is open"),
        (graph_of("Relu", ["n", 10**9]), "1,000,000,000 numbers; 10,000,000 are the most"),
        (graph_of("ReduceSum", ["n", 3], keepdims=0), "y is one number for all rows"),
        (graph_of("Relu", ["n", 3], kind=TensorProto.FLOAT16), "input x is float16; the service"),
        (graph_of("IsNaN", ["n", 3]), "output y is bool; the service knows"),
        (graph_of("Cast", ["n", 3], to=TensorProto.STRING), "output y is text; the service knows"),
    ],
)
def test_a_graph_that_cannot_be(tmp_path: Path, model: onnx.ModelProto, words: str) -> None:
    onnx.save(model, tmp_path / "file.onnx")
    with pytest.raises(JobError, match=words):
        import_onnx(tmp_path / "file.onnx", "x", tmp_path / "a")
    assert not (tmp_path / "a" / "x" / "1").exists()


@pytest.mark.parametrize("rows", ["n", 0, -1])
def test_open_sizes_as_converters_write_them(tmp_path: Path, rows: str | int) -> None:
    onnx.save(graph_of("Relu", [rows, 3]), tmp_path / "file.onnx")
    artifact = import_onnx(tmp_path / "file.onnx", "x", tmp_path / "a")
    value = artifact.manifest.functions["value"]
    assert [tensor.shape for tensor in (*value.inputs, *value.outputs)] == [("n", 3)] * 2
