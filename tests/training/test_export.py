"""Functions exported to ONNX agree with PyTorch, for any batch size, derivatives included."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from contract.agreement import too_loose
from training.errors import JobError
from training.networks.cnn_improved import ImprovedCNN
from training.publish.agreement import GraphRunner, Tolerances, measure_agreement
from training.publish.classifier_artifact import probability_tolerances
from training.publish.derivatives import SaliencyMethod, derivative, frozen, saliency
from training.publish.export import export, export_function, signature

TIGHT = Tolerances(absolute=1e-12, relative=1e-9)
FLOAT32 = Tolerances(absolute=1e-6, relative=1e-5)


def tanh_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    ).double()


class Pad(nn.Module):
    """Pads one side only, as the functional form does."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 1, 1, 1))


class Amax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def cnn(*tail: nn.Module, image: int = 16) -> nn.Sequential:
    """Every kind of layer that the project's networks have.

    In float32, as ONNX Runtime has no float64 convolution.
    """
    torch.manual_seed(1)
    features = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        Pad(),
        nn.Conv2d(8, 12, 3, stride=(1, 2)),
        nn.BatchNorm2d(12),
        nn.GELU(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(12, 12, 2, stride=2, groups=2, bias=False),
    )
    ends = tail or (nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.LazyLinear(20), nn.Linear(20, 10))
    network = nn.Sequential(*features, *ends)
    network.train()
    for _ in range(3):  # running statistics of their own
        network(torch.randn(8, 3, image, image))
    return network


def prepare(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def images(count: int = 9, size: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "image": torch.randint(
            0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator
        ),
        "class": torch.arange(count) % 10,
    }


@pytest.mark.parametrize("order", [0, 2])
def test_curve_and_its_derivatives(tmp_path: Path, order: int) -> None:
    network = frozen(tanh_network())

    def value(x: Tensor) -> Tensor:
        return network(x.unsqueeze(1)).squeeze(1)

    function = derivative(value, order) if order else value
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)
    entry, samples = export_function(function, {"x": x}, ["y"], tmp_path, "f", tolerances=TIGHT)
    assert entry.graph.agreement.maximum_absolute_error < 1e-12
    assert (entry.inputs[0].dtype, entry.inputs[0].shape) == ("float64", ("n",))
    assert (entry.outputs[0].name, entry.outputs[0].shape) == ("y", ("n",))
    assert sorted(samples) == ["f.x", "f.y"]


@pytest.fixture(scope="module")
def saliency_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain saliency of ``cnn()``, exported and checked: an export takes seconds."""
    folder = tmp_path_factory.mktemp("saliency")
    function = saliency(frozen(cnn()), prepare)
    entry, samples = export_function(
        function, images(), ["saliency"], folder, "s", tolerances=FLOAT32
    )
    assert entry.inputs[0].shape == ("n", 16, 16, 3)
    assert entry.outputs[0].shape == ("n", 16, 16)
    assert samples["s.saliency"].max() > 1e-4
    return folder / entry.graph.file


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("smoothgrad", (Amax(), nn.Linear(12, 10))),
        (
            "integrated",
            (nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(), nn.LazyLinear(10)),
        ),
    ],
    ids=["smoothgrad, amax", "integrated, overlapping pool"],
)
def test_other_methods_and_heads(
    tmp_path: Path, method: SaliencyMethod, tail: tuple[nn.Module, ...]
) -> None:
    network = frozen(cnn(*tail))
    function = saliency(network, prepare, method=method, steps=4, input_shape=(3, 16, 16))
    export_function(function, images(), ["saliency"], tmp_path, "s", tolerances=FLOAT32)


def test_our_own_network_narrow(tmp_path: Path) -> None:
    """Reflection padding, adaptive pooling and residual additions, as the improved CNN has them."""
    torch.manual_seed(3)
    network = frozen(ImprovedCNN(classes=10, widths=(4, 6, 8), depths=(1, 3, 1)))
    export_function(
        saliency(network, prepare),
        images(),
        ["saliency"],
        tmp_path,
        "saliency",
        tolerances=FLOAT32,
    )


def test_saliency_is_the_gradient_by_autograd() -> None:
    """The oracle is ``backward`` on one image at a time, without torch.func."""
    network = cnn().eval()
    batch = images()
    found = saliency(frozen(network), prepare)(*batch.values())
    for index in range(len(found)):
        x = prepare(batch["image"][index : index + 1]).requires_grad_(True)
        network(x)[0, batch["class"][index]].backward()
        assert x.grad is not None
        torch.testing.assert_close(found[index], x.grad[0].norm(dim=0), rtol=1e-5, atol=1e-7)


def test_integrated_gradients_add_up_to_the_score() -> None:
    """Completeness (Sundararajan et al., 2017): attributions sum to score(x) − score(baseline).

    The published map is a magnitude, so that the sum is checked on one channel, where the norm
    over channels is the absolute value, with a network that only ever adds.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.Softplus()).double()
    with torch.no_grad():
        network[1].weight.abs_()
    image = torch.randint(0, 256, (5, 4, 4, 1), dtype=torch.uint8)

    def scaled(image: Tensor) -> Tensor:
        return image.permute(0, 3, 1, 2).to(torch.float64) / 255

    label = torch.arange(5)
    found = saliency(frozen(network), scaled, method="integrated", steps=400)(image, label)
    at_image, at_zero = network(scaled(image)), network(scaled(torch.zeros_like(image)))
    rise = (at_image - at_zero).gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(found.sum((1, 2)), rise.detach(), rtol=1e-5, atol=1e-6)


def test_float32_probabilities(tmp_path: Path) -> None:
    network = frozen(cnn())

    def probabilities(image: Tensor) -> Tensor:
        return network(prepare(image)).softmax(1)

    entry, _ = export_function(
        probabilities,
        {"image": images()["image"]},
        ["probabilities"],
        tmp_path,
        "probabilities",
        tolerances=FLOAT32,
    )
    assert (entry.inputs[0].dtype, entry.outputs[0].dtype) == ("uint8", "float32")


def test_several_outputs(tmp_path: Path) -> None:
    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x * y, (x + y).sum(1)

    samples = {"x": torch.randn(3, 4), "y": torch.randn(3, 4)}
    entry, _ = export_function(
        both, samples, ["product", "sum"], tmp_path, "both", tolerances=FLOAT32
    )
    assert [(output.name, output.shape) for output in entry.outputs] == [
        ("product", ("n", 4)),
        ("sum", ("n",)),
    ]


def test_a_graph_is_one_file_that_tells_nothing_of_this_machine(saliency_graph: Path) -> None:
    assert [path.name for path in saliency_graph.parent.iterdir()] == [saliency_graph.name]
    content = saliency_graph.read_bytes()
    for path in (Path(__file__).parent, Path(torch.__file__).parent, Path.home()):
        assert str(path).encode() not in content
    model = onnx.load(saliency_graph)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_each_weight_is_stored_once(saliency_graph: Path) -> None:
    """Forward and backward pass use the same weights; a second copy would double a CNN's size."""
    stored = [tuple(tensor.dims) for tensor in onnx.load(saliency_graph).graph.initializer]
    for name, parameter in cnn().named_parameters():
        if parameter.dim() == 4:
            assert stored.count(tuple(parameter.shape)) == 1, name


def test_exports_are_reproducible(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    for name in ("a.onnx", "b.onnx"):
        export(derivative(torch.sin, 2), [x], ["x"], ["y"], tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_disagreement_is_refused_by_name_and_amount(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    export(torch.sin, [x], ["x"], ["y"], tmp_path / "f.onnx")
    inputs, wrong = {"x": x.numpy()}, {"y": np.sin(x.numpy()) + 1e-3}
    with pytest.raises(JobError, match=r"f\.onnx: output y .* differs from PyTorch by 0\.001"):
        measure_agreement(tmp_path / "f.onnx", inputs, wrong, TIGHT)
    with pytest.raises(JobError, match="not finite"):
        measure_agreement(tmp_path / "f.onnx", inputs, {"y": wrong["y"] * np.nan}, TIGHT)
    with pytest.raises(JobError, match=r"gives float64\[5\], PyTorch float64\[5, 1\]"):
        measure_agreement(tmp_path / "f.onnx", inputs, {"y": wrong["y"][:, None]}, TIGHT)


def test_signature_and_run(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    export(torch.sin, [x], ["x"], ["y"], tmp_path / "f.onnx")
    inputs, outputs = signature(tmp_path / "f.onnx")
    assert [tensor.name for tensor in (*inputs, *outputs)] == ["x", "y"]
    found = GraphRunner(tmp_path / "f.onnx")({"x": x.numpy()})
    np.testing.assert_allclose(found["y"], np.sin(x.numpy()), rtol=1e-14)


def test_what_cannot_be_traced_is_told_in_one_line(tmp_path: Path) -> None:
    def branches_on_a_value(x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x

    with pytest.raises(JobError, match=r"^f\.onnx: the function could not be exported: ") as caught:
        export(branches_on_a_value, [torch.ones(3)], ["x"], ["y"], tmp_path / "f.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "f.onnx").exists()


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    # Exports avoid what ONNX Runtime has no kernel for: this graph was not made by one.
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["n"]) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "g", [x], [y])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "f.onnx")
    with pytest.raises(JobError, match=r"f\.onnx: ONNX Runtime can't load the graph: .*Erf"):
        GraphRunner(tmp_path / "f.onnx")


def test_derivative_of_order_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="order 0"):
        derivative(torch.sin, 0)


def test_frozen_leaves_the_network_as_it_was() -> None:
    network = cnn()
    duplicate = frozen(network)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert not duplicate.training and not any(p.requires_grad for p in duplicate.parameters())


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_a_network_that_is_sure_of_nothing_is_accepted(classes: int, tmp_path: Path) -> None:
    """Its largest probability is one in so many classes; what is published, the service loads."""

    def unsure(image: Tensor) -> Tensor:
        return image.float().mean((1, 2, 3))[:, None].expand(-1, classes).softmax(1)

    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    tolerances = probability_tolerances(classes)
    function, samples = export_function(
        unsure, {"image": images}, ["probabilities"], tmp_path, "p", tolerances=tolerances
    )
    graph = function.graph
    assert too_loose(graph.agreement, graph.precision, [samples["p.probabilities"]]) is None
