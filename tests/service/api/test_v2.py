"""The Open Inference Protocol over the tiny artifacts: f(x) = x³ − 2x and its derivatives."""

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api.v2_messages import EXAMPLE
from service.api.w10 import EXAMPLE as W10

X = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}


def infer(client: TestClient, model: str, document: Any, status: int = 200) -> dict[str, Any]:
    answer = client.post(f"/v2/models/{model}/infer", json=document)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"]
    return answer.json()


def outputs(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer["outputs"]}


def test_describes_server_and_models(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "gradserve"
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    for path in ("/v2/models/curve-mlp", "/v2/models/curve-mlp/versions/1"):
        curve = client.get(path).json()
        assert curve["versions"] == ["1"]
        assert curve["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1]}]
        assert [o["name"] for o in curve["outputs"]] == ["y", "gradient", "gradient2", "gradient3"]
        assert client.get(f"{path}/ready").json()["ready"]
    image = client.get("/v2/models/cifar-improved").json()["inputs"][0]
    assert image == {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}


def test_every_derivative_is_an_output(client: TestClient) -> None:
    answer = infer(client, "curve-mlp", {"id": "a-1", "inputs": [X]})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "curve-mlp",
        "1",
        "a-1",
    )
    found = outputs(answer)
    assert found["y"] == pytest.approx([-1, 4])
    assert found["gradient"] == pytest.approx([1, 10])
    assert found["gradient2"] == pytest.approx([6, 12])
    assert found["gradient3"] == pytest.approx([6, 6])


def test_only_what_is_wanted_is_given(client: TestClient) -> None:
    answer = infer(client, "curve-mlp", {"inputs": [X], "outputs": [{"name": "gradient2"}]})
    assert list(outputs(answer)) == ["gradient2"]
    assert list(outputs(infer(client, "curve-mlp", EXAMPLE))) == ["y", "gradient"]


def test_images_flat_or_nested_with_and_without_their_saliency(client: TestClient) -> None:
    pixels = np.zeros((2, 32, 32, 3), int)
    pixels[0, ..., 0], pixels[1, ..., 2] = 250, 250
    image = {"name": "image", "shape": [2, 32, 32, 3], "datatype": "UINT8"}
    nested = infer(client, "cifar-improved", {"inputs": [image | {"data": pixels.tolist()}]})
    assert outputs(nested)["probabilities"].argmax(1).tolist() == [0, 2]
    assert list(outputs(nested)) == ["probabilities"]
    wanted = {"name": "class", "shape": [2], "datatype": "INT64", "data": [0, 1]}
    flat = image | {"data": pixels.ravel().tolist()}
    both = outputs(infer(client, "cifar-improved", {"inputs": [wanted, flat]}))
    assert both["saliency"].shape == (2, 32, 32)
    assert both["saliency"][1, 0, 0] == pytest.approx(250 / 3 * 2)


def test_many_rows_come_back_in_order(client: TestClient) -> None:
    x = [i / 100 for i in range(5000)]
    tensor = {"name": "x", "shape": [5000], "datatype": "FP64", "data": x}
    found = outputs(infer(client, "curve-mlp", {"inputs": [tensor]}))
    assert found["gradient"] == pytest.approx([3 * v * v - 2 for v in x])


def test_sigmoid_conv(client: TestClient) -> None:
    names = {"x": "input", "kernel": "kernel", "weights": "weights"}
    tensors = [
        {"name": n, "datatype": "FP64", "shape": list(np.shape([W10[k]])), "data": [W10[k]]}
        for n, k in names.items()
    ]
    tensors.append({"name": "label", "datatype": "FP64", "shape": [1], "data": [1]})
    found = outputs(infer(client, "sigmoid-conv", {"inputs": tensors}))
    assert found["kernel_gradient"][0] == pytest.approx(np.array(W10["kernel"]))
    assert found["loss"] == pytest.approx([1])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "z"}, 422),
        ({"shape": [3]}, 422),
        ({"shape": [2, 1]}, 422),
        ({"shape": [0], "data": []}, 422),
        ({"shape": [-2]}, 422),
        ({"shape": [10_000_000] * 4}, 422),
        ({"datatype": "FP32"}, 422),
        ({"datatype": "BYTES"}, 422),
        ({"datatype": "INT64", "data": [0.5, 1]}, 422),
        ({"data": [1, True]}, 422),
        ({"data": ["1", "2"]}, 422),
        ({"data": [[1], [2, 3]], "shape": [3]}, 422),
        ({"data": 5}, 422),
        ({"data": [1e300, 1]}, 422),
        ({"extra": 1}, 422),
    ],
)
def test_refuses_bad_tensors(client: TestClient, change: dict[str, Any], status: int) -> None:
    infer(client, "curve-mlp", {"inputs": [X | change]}, status)


def test_refuses_what_does_not_fit_together(client: TestClient) -> None:
    infer(client, "curve-mlp", {"inputs": []}, 422)
    infer(client, "curve-mlp", {"inputs": [X], "outputs": [{"name": "nope"}]}, 422)
    infer(client, "curve-mlp", {"inputs": [X], "id": "a\nb"}, 422)
    infer(client, "nope", {"inputs": [X]}, 404)
    pixels = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072}
    needs = infer(
        client, "cifar-improved", {"inputs": [pixels], "outputs": [{"name": "saliency"}]}, 422
    )
    assert needs["errors"][0]["detail"] == "class: saliency needs this input as well"
    alone = {"name": "class", "shape": [1], "datatype": "INT64", "data": [0]}
    infer(client, "cifar-improved", {"inputs": [alone]}, 422)
    two = alone | {"shape": [2], "data": [0, 0]}
    infer(client, "cifar-improved", {"inputs": [pixels, two]}, 422)
    infer(client, "cifar-improved", {"inputs": [pixels, alone | {"data": [10**6]}]}, 422)
    assert client.get("/v2/models/curve-mlp/versions/2").status_code == 404
