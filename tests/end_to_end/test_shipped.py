"""The committed artifacts, served, against independent mathematics and against PyTorch."""

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.tiny_artifacts import encoded

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts"
CURVES = ("curve-mlp", "curve-poly", "curve-gp")
CLASSIFIERS = ("cifar-baseline", "cifar-fast", "cifar-improved")
ASKED_FOR = (3.0, 0.1, -0.5)


def is_published(model: str) -> bool:
    return any((ARTIFACTS / model).glob("*/manifest.json"))


def need(model: str) -> None:
    if not is_published(model):
        pytest.skip(f"artifacts/{model} is not published yet")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(artifacts=ARTIFACTS))) as client:
        for _ in range(1000):
            if "being loaded" not in client.get("/health/ready").text:
                break
            time.sleep(0.01)
        yield client


def test_every_shipped_version_serves(client: TestClient) -> None:
    folders = {path.name for path in ARTIFACTS.iterdir() if is_published(path.name)}
    serving = {m["model"] for m in client.get("/models").json()["models"] if m["version"]}
    assert serving == folders
    for name in folders:
        details = client.get(f"/models/{name}").json()
        assert not any(version["state"] == "refused" for version in details["versions"])
        summary = client.get(f"/models/{name}/summary").json()
        assert summary["total"] == sum(layer["count"] for layer in summary["layers"])
        page = client.get(f"/models/{name}/report")
        assert page.status_code == 200
        plots = [part.partition('"')[0] for part in page.text.split('src="report/')[1:]]
        assert plots
        for plot in plots:
            assert client.get(f"/models/{name}/report/{plot}").status_code == 200


def gradient(client: TestClient, model: str, order: int, x: list[float]) -> np.ndarray:
    answer = client.post("/gradient", json={"x": x, "model": model, "order": order}).json()
    return np.array(answer["gradient"])


def predict(client: TestClient, model: str, x: np.ndarray) -> np.ndarray:
    return np.array(client.post("/predict", json={"x": x.tolist(), "model": model}).json()["y"])


@pytest.mark.parametrize("model", CURVES)
def test_derivatives_equal_central_differences(client: TestClient, model: str) -> None:
    need(model)
    x = np.array([*ASKED_FOR, *np.linspace(-0.9, 3.9, 20)])
    h = 1e-5
    central = (predict(client, model, x + h) - predict(client, model, x - h)) / (2 * h)
    assert gradient(client, model, 1, x.tolist()) == pytest.approx(central, rel=1e-6, abs=1e-6)
    for order in (2, 3):
        above = gradient(client, model, order - 1, (x + h).tolist())
        below = gradient(client, model, order - 1, (x - h).tolist())
        central = (above - below) / (2 * h)
        scale = float(np.abs(central).max())
        found = gradient(client, model, order, x.tolist())
        assert found == pytest.approx(central, rel=1e-6, abs=1e-6 * scale)


def test_the_polynomial_is_that_of_its_coefficients(client: TestClient) -> None:
    need("curve-poly")
    coefficients = np.array(client.get("/models/curve-poly").json()["coefficients"])
    x = np.linspace(-1, 4, 30)
    assert predict(client, "curve-poly", x) == pytest.approx(
        np.polyval(coefficients, x), rel=1e-7, abs=1e-7
    )
    for order in (1, 2, 3):
        expected = np.polyval(np.polyder(coefficients, order), x)
        assert gradient(client, "curve-poly", order, x.tolist()) == pytest.approx(
            expected, rel=1e-7, abs=1e-6
        )


@pytest.mark.parametrize("model", CURVES)
def test_the_fit_is_good_enough(client: TestClient, model: str) -> None:
    need(model)
    with (ROOT / "training" / "data" / "HW1-1.csv").open() as stream:
        rows = np.array([[float(r["x"]), float(r["y"])] for r in csv.DictReader(stream)])
    error = np.mean((predict(client, model, rows[:, 0]) - rows[:, 1]) ** 2)
    assert error < 0.1
    metrics = client.get(f"/models/{model}").json()["metrics"]
    assert metrics["mse"] == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("model", CURVES)
def test_the_truth_lies_in_the_bands(client: TestClient, model: str) -> None:
    """The stand-in's function is known: 1.5·sin(1.6·x) + 0.3·x."""
    need(model)
    x = np.linspace(-1, 4, 101)
    truths = {
        "/predict": 1.5 * np.sin(1.6 * x) + 0.3 * x,
        "/gradient": 2.4 * np.cos(1.6 * x) + 0.3,
    }
    for path, truth in truths.items():
        query = {"x": x.tolist(), "model": model, "uncertainty": True}
        low, high = np.array(client.post(path, json=query).json()["interval"]).T
        assert np.mean((low <= truth) & (truth <= high)) >= 0.9


def test_derivatives_equal_autograd_on_the_checkpoint(client: TestClient) -> None:
    need("curve-mlp")
    torch = pytest.importorskip("torch", reason="needs PyTorch to differentiate the checkpoint")
    safetensors = pytest.importorskip("safetensors.torch")
    version = client.get("/models/curve-mlp").json()["version"]
    w = safetensors.load_file(ARTIFACTS / "curve-mlp" / str(version) / "checkpoint.safetensors")
    x = torch.linspace(-1.5, 4.5, 41, dtype=torch.float64, requires_grad=True)
    # The network written out from its weights, without the code that trained it.
    hidden = ((x - w["x_scaling"][0]) / w["x_scaling"][1])[:, None]
    last = sum(name.endswith("bias") for name in w)
    for layer in range(1, last):
        hidden = torch.tanh(hidden @ w[f"dense{layer}.weight"].T + w[f"dense{layer}.bias"])
    y = (hidden @ w[f"dense{last}.weight"].T + w[f"dense{last}.bias"])[:, 0]
    y = y * w["y_scaling"][1] + w["y_scaling"][0]
    points = x.detach().numpy()
    assert predict(client, "curve-mlp", points) == pytest.approx(y.detach().numpy(), rel=1e-9)
    for order in (1, 2, 3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        expected = y.detach().numpy()
        assert gradient(client, "curve-mlp", order, points.tolist()) == pytest.approx(
            expected, rel=1e-9, abs=1e-9 * np.abs(expected).max()
        )


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def forward(
    x: np.ndarray, kernel: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Preactivations, activations and prediction: cross-correlation, sigmoid, linear neuron."""
    z = np.array([[(x[i : i + 3, j : j + 3] * kernel).sum() for j in (0, 1)] for i in (0, 1)])
    return z, sigmoid(z), float(weights @ sigmoid(z).ravel())


@pytest.mark.parametrize("seed", range(8))
def test_w10_equals_the_closed_form(client: TestClient, seed: int) -> None:
    need("sigmoid-conv")
    random = np.random.default_rng(seed)
    x, kernel = random.normal(size=(4, 4)), random.normal(size=(3, 3))
    weights, label = random.normal(size=4), float(random.normal())
    query = {
        "input": x.tolist(),
        "kernel": kernel.tolist(),
        "weights": weights.tolist(),
        "label": label,
    }
    matrix = client.post("/w10-gradient", json=query).json()
    sequential = client.post("/w10-gradient", json=query | {"naming": "sequential"}).json()

    z, a, prediction = forward(x, kernel, weights)
    by_prediction = 2 * (prediction - label)
    by_weights = by_prediction * a.ravel()
    by_z = by_prediction * weights.reshape(2, 2) * a * (1 - a)
    by_kernel = np.array(
        [[(by_z * x[i : i + 2, j : j + 2]).sum() for j in range(3)] for i in range(3)]
    )
    by_input = np.zeros((4, 4))
    for p in (0, 1):
        for q in (0, 1):
            by_input[p : p + 3, q : q + 3] += by_z[p, q] * kernel

    def equal(expected: object) -> object:
        return pytest.approx(expected, rel=1e-9, abs=1e-12)

    assert matrix["w10"] == {"parameter": "kernel[1][0]", "gradient": equal(by_kernel[1, 0])}
    assert sequential["w10"] == {"parameter": "weights[0]", "gradient": equal(by_weights[0])}
    for answer in (matrix, sequential):
        assert answer["prediction"] == equal(prediction)
        assert answer["loss"] == equal((prediction - label) ** 2)
        assert np.array(answer["gradients"]["kernel"]) == equal(by_kernel)
        assert np.array(answer["gradients"]["weights"]) == equal(by_weights)
        assert np.array(answer["gradients"]["input"]) == equal(by_input)
        assert np.array(answer["steps"]["preactivation"]) == equal(z)
        assert np.array(answer["steps"]["preactivation_gradient"]) == equal(by_z)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_classifies_and_explains_a_picture(client: TestClient, model: str) -> None:
    need(model)
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    files = {"file": encoded(picture, "PNG")}
    top = client.post(f"/classify?model={model}&top_k=10", files=files).json()["results"][0]["top"]
    assert sum(t["probability"] for t in top) == pytest.approx(1, abs=1e-5)
    explained = client.post(f"/explain?model={model}", files=files).json()
    assert explained["saliency"]["label"] == top[0]["label"]
    assert np.array(explained["saliency"]["map"]).shape == (32, 32)


def test_the_baseline_has_the_parameters_of_its_table(client: TestClient) -> None:
    need("cifar-baseline")
    summary = client.get("/models/cifar-baseline/summary").json()
    counts = [layer["count"] for layer in summary["layers"] if layer["count"]]
    assert counts == [896, 18_496, 2_098_176, 1_049_600, 10_250]
    assert summary["total"] == 3_177_418
