"""/w10-gradient: what goes in, and that every output of the graph lands in its place."""

import pytest
from starlette.testclient import TestClient

from service.api.w10 import EXAMPLE


def test_every_output_lands_in_its_place(client: TestClient) -> None:
    # The tiny artifact copies its inputs to its outputs; see tests/tiny_artifacts.py.
    answer = client.post("/w10-gradient", json=EXAMPLE).json()
    corner = [row[:2] for row in EXAMPLE["input"][:2]]
    assert answer["prediction"] == answer["loss"] == EXAMPLE["label"]
    assert answer["gradients"] == {
        "kernel": EXAMPLE["kernel"],
        "weights": EXAMPLE["weights"],
        "input": EXAMPLE["input"],
    }
    assert answer["steps"]["activation"] == answer["steps"]["preactivation"] == corner
    assert answer["steps"]["prediction_gradient"] == EXAMPLE["label"]


@pytest.mark.parametrize(
    ("naming", "parameter", "gradient"),
    [
        ("matrix", "kernel[1][0]", EXAMPLE["kernel"][1][0]),
        ("sequential", "weights[0]", EXAMPLE["weights"][0]),
    ],
)
def test_both_readings_of_w10(
    client: TestClient, naming: str, parameter: str, gradient: float
) -> None:
    answer = client.post("/w10-gradient", json=EXAMPLE | {"naming": naming}).json()
    assert answer["w10"] == {"parameter": parameter, "gradient": gradient}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kernel": [[1, 2], [3, 4]]}, "#/kernel"),
        ({"weights": [1, 2, 3]}, "#/weights"),
        ({"label": None}, "#/label"),
        ({"label": "1"}, "#/label"),
        ({"naming": "other"}, "#/naming"),
        ({"input": [[1, 2, 3, "4"]] + [[0] * 4] * 3}, "#/input/0/3"),
        ({"label": 1e200}, "#/label"),
        ({"more": 1}, "#"),
    ],
)
def test_refuses(client: TestClient, change: dict, pointer: str) -> None:
    answer = client.post("/w10-gradient", json=EXAMPLE | change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
