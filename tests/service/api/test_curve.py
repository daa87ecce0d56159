"""/predict and /gradient against f(x) = x³ − 2x, whose derivatives are known by heart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.tiny_artifacts import publish_curve

DERIVATIVES = {
    1: lambda x: 3 * x**2 - 2,
    2: lambda x: 6 * x,
    3: lambda _: 6.0,
}


def test_predicts_a_list_and_marks_extrapolation(client: TestClient) -> None:
    answer = client.post("/predict", json={"x": [-1.5, -1, 4, 4.5]})
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "curve-mlp",
        "version": 1,
        "x": [-1.5, -1.0, 4.0, 4.5],
        "y": [x**3 - 2 * x for x in (-1.5, -1, 4, 4.5)],
        "extrapolated": [True, False, False, True],
    }


def test_predicts_a_number(client: TestClient) -> None:
    assert client.post("/predict", json={"x": 3}).json()["y"] == [21.0]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_differentiates(client: TestClient, order: int) -> None:
    answer = client.post("/gradient", json={"x": [-0.5, 0.1, 3.0], "order": order}).json()
    assert answer["order"] == order
    expected = [DERIVATIVES[order](x) for x in answer["x"]]
    assert answer["gradient"] == pytest.approx(expected)
    assert answer["y"] == pytest.approx([x**3 - 2 * x for x in answer["x"]])


def test_order_is_one_unless_given(client: TestClient) -> None:
    assert client.post("/gradient", json={"x": 3.0}).json()["gradient"] == pytest.approx([25])


def test_many_x_are_answered_in_order(client: TestClient) -> None:
    x = [i / 1000 for i in range(10_000)]
    answer = client.post("/gradient", json={"x": x}).json()
    assert answer["x"] == x
    assert answer["gradient"] == pytest.approx([3 * v**2 - 2 for v in x])


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ('{"x": NaN}', 422, "#/x"),
        ('{"x": [0, Infinity]}', 422, "#/x/1"),
        ('{"x": [1e400]}', 422, "#/x/0"),
        ('{"x": 1' + "0" * 400 + "}", 422, "#/x"),
        ('{"x": true}', 422, "#/x"),
        ('{"x": "3"}', 422, "#/x"),
        ('{"x": null}', 422, "#/x"),
        ('{"x": []}', 422, "#/x"),
        ('{"x": [[1]]}', 422, "#/x/0"),
        ("{}", 422, "#/x"),
        ('{"x": 1, "__class__": 2}', 422, "#"),
        ('{"x": 1, "model": "a/../b"}', 404, None),
        ('{"x": 1, "model": 5}', 422, "#/model"),
        ('{"x": 1, "order": 4}', 422, "#/order"),
        ('{"x": 1, "order": true}', 422, "#/order"),
        ('{"x": 1e300}', 422, "#/x/0"),
        ("[1]", 422, "#"),
        ('{"x": ', 400, None),
        ("", 400, None),
        ("\ufeff{}", 400, None),
        ('{"x": "\\ud800"}', 400, None),
        ("[" * 100_000, 400, None),
    ],
)
def test_refuses(client: TestClient, body: str, status: int, pointer: str | None) -> None:
    answer = client.post(
        "/gradient", content=body.encode(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert len(answer.content) < 4096
    if pointer:
        assert pointer in {e["pointer"] for e in problem["errors"]}
        assert len({e["pointer"] for e in problem["errors"]}) == 1


@pytest.mark.parametrize("number", ["-0.0", "5e-324", "1e3", "0"])
def test_takes_every_kind_of_finite_number(client: TestClient, number: str) -> None:
    answer = client.post(
        "/predict",
        content=f'{{"x": {number}}}'.encode(),
        headers={"content-type": "application/json; charset=utf-8"},
    )
    assert answer.status_code == 200
    assert answer.json()["x"] == [float(number)]


def test_limits_the_number_of_x_and_the_bytes(serve, artifacts) -> None:
    client = serve(artifacts, max_x=3, max_json_bytes=100)
    assert client.post("/predict", json={"x": [1, 2, 3]}).status_code == 200
    too_many = client.post("/predict", json={"x": [1, 2, 3, 4]})
    assert (too_many.status_code, too_many.json()["errors"][0]["pointer"]) == (422, "#/x")
    assert client.post("/predict", json={"x": [1] * 100}).status_code == 413


def test_wants_json_and_not_compressed(client: TestClient) -> None:
    form = client.post("/predict", data={"x": "3"})
    assert form.status_code == 415
    assert "application/json" in form.json()["detail"]
    zipped = client.post(
        "/predict",
        content=b"\x1f\x8b",
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert zipped.status_code == 415


def test_never_repeats_the_input(client: TestClient) -> None:
    secret = "s3cret" * 20
    for body in ({"x": secret}, {"x": 1, secret: 1}, {"x": 1, "model": secret}):
        answer = client.post(
            "/predict", content=json.dumps(body), headers={"content-type": "application/json"}
        )
        assert answer.status_code >= 400
        assert "s3cret" not in answer.text


def test_a_model_of_another_kind_is_named_as_such(client: TestClient) -> None:
    answer = client.post("/predict", json={"x": 1, "model": "cifar-improved"})
    assert answer.status_code == 404
    assert "curve-mlp" in answer.json()["detail"]


def unsure(serve: Callable[..., TestClient], root: Path) -> TestClient:
    """A curve with standard deviations x² and 6 of f and f′, 5 degrees of freedom; and one
    without."""
    publish_curve(root, "curve-gp", uncertain=True)
    publish_curve(root, "curve-sure")
    return serve(root)


def test_standard_errors_and_intervals(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    client = unsure(serve, tmp_path)
    query = {"x": [2.0, 0.5], "model": "curve-gp", "uncertainty": True}
    found = client.post("/predict", json=query).json()
    assert found["standard_error"] == [4.0, 0.25]
    # Student's t with 5 degrees of freedom: 2.5706 at 95 %, 2.0150 at 90 %.
    assert found["interval"][0] == pytest.approx([4 - 2.570582 * 4, 4 + 2.570582 * 4], rel=1e-5)
    assert found["interval"][1] == pytest.approx(
        [-0.875 - 2.570582 * 0.25, -0.875 + 2.570582 * 0.25], rel=1e-5
    )
    found = client.post("/gradient", json=query | {"level": 0.9}).json()
    assert found["standard_error"] == [6.0, 6.0]
    assert found["interval"][0] == pytest.approx([10 - 2.015048 * 6, 10 + 2.015048 * 6], rel=1e-5)
    plain = client.post("/gradient", json={"x": 2.0, "model": "curve-gp"}).json()
    assert "interval" not in plain and "standard_error" not in plain
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.0]}
    asked = {"inputs": [tensor], "outputs": [{"name": "value_sd"}]}
    (output,) = client.post("/v2/models/curve-gp/infer", json=asked).json()["outputs"]
    assert output["data"] == [4.0]


def test_what_has_no_interval_says_so(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    client = unsure(serve, tmp_path)
    cases: list[tuple[str, dict[str, object], int, str]] = [
        ("/gradient", {"order": 3}, 422, "no standard errors of order 3"),
        ("/gradient", {"order": 2}, 404, "without gradient2_sd"),
        ("/predict", {"model": "curve-sure"}, 404, "without value_sd"),
        ("/predict", {"level": 1.0}, 422, "level"),
        ("/predict", {"level": 0}, 422, "level"),
        ("/predict", {"uncertainty": 1}, 422, "uncertainty"),
        ("/predict", {"uncertainty": False, "level": 0.9}, 422, "A level is that of an interval"),
        ("/predict", {"x": 1e200}, 422, "too large"),
    ]
    for path, change, status, word in cases:
        query = {"x": 2.0, "model": "curve-gp", "uncertainty": True}
        answer = client.post(path, json=query | change)
        assert answer.status_code == status, answer.text
        assert word in answer.text


@pytest.mark.parametrize("path", ["/predict", "/gradient"])
def test_far_outside_there_is_no_interval(
    serve: Callable[..., TestClient], tmp_path: Path, path: str
) -> None:
    """The data reach from -1 to 4; a twentieth of that beyond them is the end."""
    client = unsure(serve, tmp_path)
    x = [-1.26, -1.24, 4.24, 4.26]
    found = client.post(path, json={"x": x, "model": "curve-gp", "uncertainty": True}).json()
    assert [error is None for error in found["standard_error"]] == [True, False, False, True]
    assert [ends == [None, None] for ends in found["interval"]] == [True, False, False, True]
    assert found["extrapolated"] == [True] * 4
    assert None not in found["y"]


@pytest.mark.parametrize("path", ["/predict", "/gradient"])
def test_a_level_without_uncertainty_is_refused(
    serve: Callable[..., TestClient], tmp_path: Path, path: str
) -> None:
    client = unsure(serve, tmp_path)
    answer = client.post(path, json={"x": 2.0, "model": "curve-gp", "level": 0.9})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "#/level"
    assert '"uncertainty": true' in error["detail"]


@pytest.mark.parametrize("name", ["level", "uncertainty"])
def test_v2_names_the_outputs_that_it_has_instead_of_intervals(
    serve: Callable[..., TestClient], tmp_path: Path, name: str
) -> None:
    client = unsure(serve, tmp_path)
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.0]}
    asked = {"inputs": [tensor], "parameters": {name: 1}}
    answer = client.post("/v2/models/curve-gp/infer", json=asked)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"#/parameters/{name}"
    assert "value_sd, gradient_sd" in error["detail"]
    none = client.post("/v2/models/curve-sure/infer", json=asked)
    assert none.status_code == 422 and "has no outputs for it" in none.text
