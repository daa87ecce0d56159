"""/w10-gradient: what goes in, and that every output of the graph lands in its place."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api.w10 import EXAMPLE
from service.app import create_app
from service.settings import Settings

SHIPPED = Path(__file__).parents[3] / "artifacts"
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))


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


@pytest.fixture(scope="module")
def shipped() -> Iterator[TestClient]:
    """The real graph, which the marking takes its right numbers from."""
    with TestClient(create_app(Settings(artifacts=SHIPPED, access_log=False))) as running:
        deadline = time.monotonic() + 60
        while running.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield running


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def by_hand(flip: bool = False, sigma: str = "prime", positions: tuple = CELLS) -> float:
    """∂loss/∂k10 of the example in plain Python, with a slip if one is asked for."""
    x, v, y = EXAMPLE["input"], EXAMPLE["weights"], EXAMPLE["label"]
    k = [row[::-1] for row in EXAMPLE["kernel"][::-1]] if flip else EXAMPLE["kernel"]
    z = {
        (p, q): sum(k[i][j] * x[p + i][q + j] for i in range(3) for j in range(3)) for p, q in CELLS
    }
    a = {cell: sigmoid(z[cell]) for cell in CELLS}
    dy = 2 * (sum(v[2 * p + q] * a[p, q] for p, q in CELLS) - y)
    slope = {"prime": lambda s: s * (1 - s), "none": lambda s: s / s, "plain": lambda s: s}[sigma]
    column = 2 if flip else 0
    return sum(dy * v[2 * p + q] * slope(a[p, q]) * x[p + 1][q + column] for p, q in positions)


def marked(client: TestClient, answer: object, **changes: object) -> dict:
    response = client.post("/w10-gradient", json=EXAMPLE | changes | {"answer": answer})
    assert response.status_code == 200, response.text
    return response.json()["marking"]


@pytest.mark.parametrize(
    ("answer", "slips"),
    [
        (by_hand(), []),
        (round(by_hand(), 3), []),  # rounded as one rounds by hand
        (by_hand() / 2, ["factor 2"]),
        (-by_hand(), ["sign"]),
        (-by_hand() / 2, ["factor 2", "sign"]),
        (by_hand(sigma="none"), ["σ′ was forgotten"]),
        (by_hand(sigma="none") / 2, ["σ′ was forgotten", "factor 2"]),
        (by_hand(sigma="plain"), ["a σ was taken for σ′"]),
        (by_hand(flip=True), ["the kernel was flipped"]),
        *((by_hand(positions=(cell,)), [f"z{cell[0]}{cell[1]}"]) for cell in CELLS),
        (12.5, []),
    ],
)
def test_an_answer_is_marked(shipped: TestClient, answer: float, slips: list[str]) -> None:
    marking = marked(shipped, answer)
    right = abs(answer - by_hand()) < 1e-3
    assert marking["correct"] == right
    assert marking["went_wrong_at"] == (None if right else "gradient")
    (step,) = marking["steps"]
    assert len(step["slips"]) == len(slips)
    for slip, words in zip(step["slips"], slips, strict=True):
        assert words in slip
        assert slip in step["message"]
        assert slip in marking["message"]
    if right:
        assert marking["message"] == "Right."
    elif not slips:
        assert "none of the usual slips" in marking["message"]


def test_the_other_reading_is_named(shipped: TestClient) -> None:
    answer = shipped.post("/w10-gradient", json=EXAMPLE | {"naming": "sequential"}).json()
    v0 = answer["w10"]["gradient"]
    assert marked(shipped, v0, naming="sequential")["correct"]
    assert "other reading" in marked(shipped, v0)["message"]
    assert "other reading" in marked(shipped, by_hand(), naming="sequential")["message"]


def test_where_it_went_wrong_is_the_first_step_that_does_not_follow(shipped: TestClient) -> None:
    right = shipped.post("/w10-gradient", json=EXAMPLE).json()
    z = right["steps"]["preactivation"]
    assert marked(shipped, {"preactivation": z})["message"].startswith("Right so far")
    # z01 is wrong; everything after it is calculated well, from that.
    z = [[z[0][0], z[0][1] + 0.5], z[1]]
    a = [[sigmoid(value) for value in row] for row in z]
    v, y = EXAMPLE["weights"], EXAMPLE["label"]
    prediction = v[0] * a[0][0] + v[1] * a[0][1] + v[2] * a[1][0] + v[3] * a[1][1]
    marking = marked(
        shipped,
        {
            "preactivation": z,
            "activation": a,
            "prediction": prediction,
            "prediction_gradient": 2 * (prediction - y),
        },
    )
    assert marking["went_wrong_at"] == "preactivation"
    first, *others = marking["steps"]
    assert first["wrong"] == [[0, 1]]
    assert "z01" in first["message"]
    assert [step["step"] for step in others] == ["activation", "prediction", "prediction_gradient"]
    assert all(step["follows"] and not step["correct"] for step in others)


def test_a_slip_in_a_step_is_named(shipped: TestClient) -> None:
    steps = shipped.post("/w10-gradient", json=EXAMPLE).json()["steps"]
    turned = EXAMPLE | {"kernel": [row[::-1] for row in EXAMPLE["kernel"][::-1]]}
    flipped = shipped.post("/w10-gradient", json=turned).json()["steps"]["preactivation"]
    wrong = {
        "preactivation": (flipped, "flipped"),
        "activation": (steps["preactivation"], "sigmoid was forgotten"),
        "prediction_gradient": (steps["prediction_gradient"] / 2, "factor 2"),
        "activation_gradient": ([[-c for c in r] for r in steps["activation_gradient"]], "sign"),
        "preactivation_gradient": (steps["activation_gradient"], "σ′ was forgotten"),
        "loss": (steps["prediction_gradient"] / 2, "square"),
    }
    for name, (value, words) in wrong.items():
        assert words in marked(shipped, {name: value})["message"], name
    # One number of a 2×2 alone.
    z00 = steps["preactivation"][0][0]
    marking = marked(shipped, {"preactivation": [[z00, None], [None, None]]})
    assert marking["correct"]


@pytest.mark.parametrize(
    ("answer", "pointer"),
    [
        ("0.2", "#/answer"),
        (True, "#/answer"),
        ({"gradient": "0.2"}, "#/answer/gradient"),
        ({"activation": [[1, 2]]}, "#/answer/activation"),
        ({"slope": 1}, "#"),
    ],
)
def test_refuses_what_is_no_answer(client: TestClient, answer: object, pointer: str) -> None:
    response = client.post("/w10-gradient", json=EXAMPLE | {"answer": answer})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith(pointer)


@pytest.mark.filterwarnings("error")
def test_numbers_as_large_as_they_may_be_are_marked(client: TestClient) -> None:
    large = {name: [[1e100] * 4] * 4 if name == "input" else EXAMPLE[name] for name in EXAMPLE}
    large |= {"weights": [1e100] * 4, "label": -1e100}
    cells = [[-1e100, 1e100], [1e100, 1e100]]
    answer = {"activation": cells, "activation_gradient": cells, "preactivation_gradient": cells}
    response = client.post("/w10-gradient", json=large | {"answer": answer | {"gradient": 1e100}})
    assert response.status_code == 200
    assert response.json()["marking"]["correct"] is False


def test_without_an_answer_nothing_is_marked(client: TestClient) -> None:
    assert "marking" not in client.post("/w10-gradient", json=EXAMPLE).json()
