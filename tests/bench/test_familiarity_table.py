"""The measurement of familiarity: its figure, its pictures, and what it takes out of a graph."""

import numpy as np
import onnx
import pytest

from bench.familiarity import auroc, session, without
from tests.tiny_artifacts import publish_classifier

SCRAMBLED = "test images, scrambled"


def test_auroc_is_the_chance_of_being_larger() -> None:
    random = np.random.default_rng(0)
    own, others = random.integers(0, 9, 40), random.integers(0, 7, 60)
    pairs = (own[:, None] > others).mean() + (own[:, None] == others).mean() / 2
    assert auroc(own, others) == pytest.approx(pairs)
    assert auroc(np.ones(3), np.zeros(5)) == 1
    assert auroc(np.zeros(3), np.zeros(5)) == 0.5


def test_the_output_and_what_only_it_needs_are_left_out(tmp_path) -> None:
    artifact = publish_classifier(tmp_path, familiar=True)
    graph = onnx.load(artifact.folder / "probabilities.onnx")
    image = np.full((1, 32, 32, 3), 51, np.uint8)
    kept = without(graph, "familiar").graph
    assert [output.name for output in kept.output] == ["probabilities"]
    assert [node.op_type for node in kept.node] == ["Cast", "ReduceMean", "Mul", "Softmax"]
    probabilities, familiar = session(graph).run(None, {"image": image})
    assert familiar == pytest.approx([0.2])
    assert session(without(graph, "familiar")).run(None, {"image": image})[0] == pytest.approx(
        probabilities
    )


def test_every_kind_is_pictures_that_differ() -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    from bench.strangers import strangers

    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    kinds = dict(strangers(12, images))
    assert len(kinds) == 9
    for name, pictures in kinds.items():
        assert pictures.shape[1:] == (32, 32, 3), name
        assert pictures.dtype == np.uint8
        assert len(np.unique(pictures, axis=0)) >= 12, name
    scrambled, whole = (np.sort(x.reshape(len(x), -1)) for x in (kinds[SCRAMBLED], images))
    assert all((row == whole).all(1).any() for row in scrambled)
