"""The manifests' test accuracy, measured again on all 10,000 CIFAR-10 test images."""

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from contract import store
from contract.manifest import ClassifierManifest
from service.app import create_app
from service.settings import Settings
from tests.end_to_end.test_shipped import ARTIFACTS, CLASSIFIERS, ROOT

ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10.zip"
MOST_IN_ONE_REQUEST = 64

pytestmark = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="needs CIFAR-10, which is not part of the repository"
)


@pytest.fixture(scope="module")
def files() -> list[tuple[str, bytes]]:
    """Class and PNG file of every test image."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return [
            (name.split("/")[1], archive.read(name))
            for name in archive.namelist()
            if name.startswith("test/") and name.endswith(".png")
        ]


@pytest.fixture(scope="module")
def pixels(files: list[tuple[str, bytes]]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(io.BytesIO(content))) for _, content in files])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(artifacts=ARTIFACTS))) as client:
        deadline = time.monotonic() + 60
        while (ready := client.get("/health/ready")).status_code != 200:
            assert time.monotonic() < deadline, ready.text
            time.sleep(0.05)
        yield client


def manifest_of(model: str) -> tuple[Path, ClassifierManifest]:
    artifact, _ = store.newest_good(ARTIFACTS, model)
    assert isinstance(artifact.manifest, ClassifierManifest)
    return artifact.folder, artifact.manifest


def predicted(graph: Path, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    parts = [
        session.run(None, {"image": pixels[start : start + 250]})[0].argmax(1)
        for start in range(0, len(pixels), 250)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_the_graphs_are_as_good_as_the_manifest_says(
    model: str, files: list[tuple[str, bytes]], pixels: NDArray[np.uint8]
) -> None:
    folder, manifest = manifest_of(model)
    labels = np.array([manifest.classes.index(label) for label, _ in files])
    function = manifest.functions["probabilities"]
    (int8,) = [graph for graph in function.variants if graph.precision == "int8"]
    plain = predicted(folder / function.graph.file, pixels)
    small = predicted(folder / int8.file, pixels)
    metrics = manifest.metrics
    # Another processor rounds otherwise: a few images in 10,000 may change sides, more in int8.
    assert np.mean(plain == labels) == pytest.approx(metrics["top1"]["test"], abs=5e-4)
    assert np.mean(small == labels) == pytest.approx(metrics["int8"]["test_top1"], abs=3e-3)
    assert np.mean(small == plain) == pytest.approx(metrics["int8"]["test_agreement"], abs=5e-3)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_the_service_names_the_class_as_often(
    model: str, files: list[tuple[str, bytes]], client: TestClient
) -> None:
    _, manifest = manifest_of(model)
    right = 0
    for start in range(0, len(files), MOST_IN_ONE_REQUEST):
        part = files[start : start + MOST_IN_ONE_REQUEST]
        answer = client.post(
            f"/classify?model={model}&top_k=1",
            files=[("file", ("image.png", content, "image/png")) for _, content in part],
        )
        assert answer.status_code == 200, answer.text
        for (label, _), result in zip(part, answer.json()["results"], strict=True):
            right += result["top"][0]["label"] == label
    assert right / len(files) == pytest.approx(manifest.metrics["top1"]["test"], abs=4e-3)


def test_the_improved_network_is_far_better_than_the_baseline() -> None:
    (_, baseline), (_, improved) = map(manifest_of, ("cifar-baseline", "cifar-improved"))
    assert improved.metrics["top1"]["test"] >= baseline.metrics["top1"]["test"] + 0.10
    assert improved.metrics["top1"]["test"] >= 0.94
    teachers = improved.training.config.get("teachers", [])
    assert all(each["device"] == improved.training.device for each in teachers)
    taught = sum(each["wall_seconds"] for each in teachers)
    assert improved.training.wall_seconds + taught <= 8 * 3600
    assert improved.parameters.multiply_adds <= 120_000_000
    assert improved.metrics["int8"]["test_agreement"] >= 0.995
    int8, fp32 = improved.metrics["int8"]["test_top1"], improved.metrics["top1"]["test"]
    assert abs(int8 - fp32) <= 0.001
