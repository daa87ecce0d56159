"""How familiar a picture is: the head, its place in both graphs, and what it costs."""

import numpy as np
import onnx
import pytest
import torch

from contract.manifest import Graph
from contract.signatures import classifier
from contract.store import Artifact, Draft
from service.runtime.loader import load
from service.runtime.session import Session
from service.settings import Settings
from tests.training.test_fit import two_classes
from training.data.images import ImageData, Split
from training.fit.checkpoint import Epoch
from training.fit.loop import Fitted
from training.fit.normalise import Normalise
from training.networks.backbone import BACKBONES
from training.networks.classifier import NETWORKS, make_classifier
from training.networks.cnn_improved import ImprovedCNN
from training.provenance import training_record
from training.publish.classifier_artifact import write_artifact
from training.publish.familiarity import Familiarity, fit_familiarity, with_features
from training.publish.measure import run_classifier
from training.publish.parameters import summarise

TRAINED_ON = two_classes(200)
HELD_OUT = Split(two_classes(320).images[200:], two_classes(320).labels[200:])


def signs(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [rows, 3], and features [rows, 4] that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[1.0, 0.9, 0, 0], [0, 0.2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0.1]])
    logits = 3 * torch.randn(rows, 3, generator=generator)
    return logits, torch.randn(rows, 4, generator=generator) @ mixing + 7


def test_it_is_the_share_of_validation_images_with_a_lower_score() -> None:
    training, validation, others = signs(4000, 1), signs(1001, 2), signs(50, 3)
    head = Familiarity(training, validation)
    # The same by NumPy, from the definition.
    logits, features = (tensor.double().numpy() for tensor in training)
    covariance = np.cov(features.T, bias=True)
    covariance += 1e-3 * np.trace(covariance) / 4 * np.eye(4)

    def both(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy = np.log(np.exp(logits).sum(1))
        away = features - training[1].double().numpy().mean(0)
        squared = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        return energy, np.sqrt(squared)

    spread = [sign.std() for sign in both(logits, features)]

    def score(pair: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
        energy, distance = both(*(tensor.double().numpy() for tensor in pair))
        return energy / spread[0] - distance / spread[1]

    shares = (score(validation)[None] < score(others)[:, None]).mean(1)
    assert head(*others).numpy() == pytest.approx(shares, abs=0.01)
    far = (others[0], others[1] + torch.tensor([0, 0, 0, 10.0]))
    assert (head(*far) == 0).all()
    assert head(*validation).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", [*NETWORKS, *BACKBONES])
def test_every_network_tells_its_early_features_and_answers_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = make_classifier(name, "release", 3).eval().folded()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = with_features(network, images)
        assert torch.equal(logits, network(images))
    assert features.shape[0] == 2
    assert 16 <= features.shape[1] <= 256
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_takes_under_three_percent_of_the_multiply_adds(name: str) -> None:
    network = make_classifier(name, "release", 10).eval()
    _, features = with_features(network, torch.zeros(1, 3, 32, 32))
    whole = summarise(network, torch.zeros(2, 3, 32, 32)).multiply_adds
    assert features.shape[1] * (features.shape[1] + 1) < 0.03 * whole


def test_few_validation_images_give_none() -> None:
    network = ImprovedCNN(2, (8, 8, 8), (1, 2, 2), torch.nn.ReLU).eval()
    few = Split(HELD_OUT.images[:49], HELD_OUT.labels[:49])
    assert fit_familiarity(network, Normalise.of(few.images), TRAINED_ON, few) is None


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An untrained network with every part of an artifact."""
    torch.manual_seed(0)
    network = ImprovedCNN(2, (16, 16, 16), (1, 2, 2), torch.nn.ReLU)
    # The first filters of an untrained network are the identity: each has one weight that is far
    # larger than the others. Such products in int8 are cut off on processors without VNNI.
    for convolution in network.groups.modules():
        if isinstance(convolution, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(convolution.weight)
    normalise = Normalise.of(TRAINED_ON.images)
    network.prepare(normalise(TRAINED_ON.images))
    epoch = Epoch(1, 1.0, 1.0, 0.5, 1.0, 1.0, 0.5)
    data = ImageData("two", ("dark", "bright"), TRAINED_ON, HELD_OUT, HELD_OUT, "0" * 64)
    fitted = Fitted(network.eval(), normalise, [epoch], ["cpu"])
    with Draft(tmp_path_factory.mktemp("familiar"), "two") as draft:
        record = training_record({"network": "improved"}, seed=0, epochs=1, wall_seconds=1)
        return draft.publish(write_artifact(draft, fitted, data, record))


def shares(artifact: Artifact, graph: Graph, pixels: np.ndarray) -> np.ndarray:
    """What the graph says of uint8 [n, 32, 32, 3]."""
    function = artifact.manifest.functions["probabilities"]
    chosen = function.model_copy(update={"graph": graph, "variants": ()})
    session = Session(artifact.read(graph.file), chosen, ("CPUExecutionProvider",), 1)
    return session.run(pixels)[1]


def test_both_graphs_tell_it(published: Artifact) -> None:
    function = published.manifest.functions["probabilities"]
    assert classifier(published.manifest).familiar == "familiar"
    assert run_classifier(published.folder / function.graph.file, HELD_OUT).shape == (120, 2)
    known = HELD_OUT.images.permute(0, 2, 3, 1).contiguous().numpy()
    strange = np.zeros_like(known[:20])
    strange[:, ::2] = 255
    for graph in (function.graph, *function.variants):
        assert shares(published, graph, known).mean() == pytest.approx(0.5, abs=0.1), graph.file
        assert shares(published, graph, strange).max() < 0.01, graph.file
    (int8,) = function.variants
    full, small = (shares(published, graph, known) for graph in (function.graph, int8))
    assert np.abs(full - small).mean() < 0.1


def test_the_head_stays_in_float_in_the_int8_graph(published: Artifact) -> None:
    graph = onnx.load(published.folder / "probabilities.int8.onnx").graph
    needed = {"probabilities"}
    head = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            head.append(node.op_type)
        else:
            needed.update(node.input)
    assert {"Gemm", "ReduceLogSumExp"} <= set(head)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(head)
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


def test_the_service_replays_and_serves_it(published: Artifact) -> None:
    model = load(published.folder, Settings())
    assert model.classifier is not None
    assert model.classifier.familiar == "familiar"
    assert model.functions["probabilities"].refused == ()
    with np.load(published.folder / "samples.npz") as samples:
        assert len(samples["probabilities.familiar"]) == 8
    assert "`familiar` tells" in (published.folder / "report.md").read_text()
