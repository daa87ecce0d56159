"""``/evaluate``: names in, names out; lone rows; limits before the work; where things are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.tiny_artifacts import QUADRATIC, publish_scaled

X = [1.0, 2.0, 3.0]


def ask(client: TestClient, status: int = 200, /, **document: Any) -> dict[str, Any]:
    answer = client.post("/evaluate", json=document)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def outputs(client: TestClient, model: str, inputs: Any, *wanted: str) -> dict[str, Any]:
    found = ask(client, model=model, inputs=inputs, outputs=list(wanted) or None)
    assert (found["model"], found["version"]) == (model, 1)
    return {name: np.array(value) for name, value in found["outputs"].items()}


def test_value_and_derivatives_of_rows_and_of_a_lone_row(functions: TestClient) -> None:
    y = 0.5 * np.einsum("i,jil,l->j", X, QUADRATIC, X)
    jacobian = QUADRATIC @ X
    found = outputs(functions, "quadratic", {"x": [X, X]}, "y", "jacobian_y_x")
    assert found["y"].tolist() == [y.tolist()] * 2
    assert found["jacobian_y_x"].tolist() == [jacobian.tolist()] * 2
    lone = outputs(functions, "quadratic", {"x": X}, "y", "jacobian_y_x", "hessian_y_x_x")
    assert lone["y"].tolist() == y.tolist()
    assert lone["jacobian_y_x"].tolist() == jacobian.tolist()
    assert lone["hessian_y_x_x"].tolist() == QUADRATIC.tolist()
    # Without names, what the function itself gives.
    assert list(outputs(functions, "quadratic", {"x": X})) == ["y"]
    assert outputs(functions, "bowl", {"x": X})["f"].shape == ()


def test_tangents_one_or_several_a_row(functions: TestClient) -> None:
    jacobian = QUADRATIC @ X
    tangents = np.eye(3)[:2]
    several = {"x": [X], "tangent_x": [tangents.tolist()]}
    found = outputs(functions, "quadratic", several, "jvp_y")["jvp_y"]
    assert found.tolist() == [(tangents @ jacobian.T).tolist()]
    for x, tangent, shape in (
        ([X], [[1, 0, 0]], (1, 2)),
        (X, [1, 0, 0], (2,)),
        (X, [[1, 0, 0]], (1, 2)),
    ):
        found = outputs(functions, "quadratic", {"x": x, "tangent_x": tangent}, "jvp_y")["jvp_y"]
        assert found.shape == shape and found.ravel().tolist() == jacobian[:, 0].tolist()
    missing = ask(functions, 422, model="quadratic", inputs={"x": X}, outputs=["jvp_y"])
    assert "tangent_x" in missing["errors"][0]["detail"]


def test_parameters_have_no_rows(functions: TestClient) -> None:
    given = {"x": [[1, 2], [3, 4]], "m": [1, 2], "theta": [5, 6]}
    found = outputs(functions, "mixed", given)
    assert found["y"].tolist() == [17, 78] and found["inverse"].shape == (2, 2)
    lone = outputs(functions, "mixed", {"x": [1, 2], "m": 1, "theta": [5, 6]}, "y")
    assert lone["y"].tolist() == 17
    both = {"model": "mixed", "inputs": {"x": [[1, 2]], "m": 1, "theta": [5, 6]}}
    detail = functions.post("/evaluate", json=both).json()["errors"][0]["detail"]
    assert detail == "its shape should be [n], or [] for a lone row in every input"
    asked = {"cotangent_y": [1, 1], "cotangent_inverse": [[0, 0], [0, 0]]}
    assert outputs(functions, "mixed", given | asked, "vjp_theta")["vjp_theta"].tolist() == [7, 10]


@pytest.mark.parametrize(
    ("inputs", "outputs", "pointer"),
    [
        ({"x": [[1, 2, "a"]]}, None, "#/inputs/x/0/2"),
        ({"x": [[1, 2, True]]}, None, "#/inputs/x/0/2"),
        ({"x": [[1, 2, None]]}, None, "#/inputs/x/0/2"),
        ({"x": [[1, 2, 3], [1, 2]]}, None, "#/inputs/x/1"),
        ({"x": [[1, 2, 3], 4]}, None, "#/inputs/x/1"),
        ({"x": [[1, 2, 3], {}]}, None, "#/inputs/x/1"),
        ({"x": [[1, 2, 10**400]]}, None, "#/inputs/x"),
        ({"x": "1"}, None, "#/inputs/x"),
        ({"x": []}, None, "#/inputs/x"),
        ({"x": [[1, 2]]}, None, "#/inputs/x"),
        ({"x": [[[1, 2, 3]]]}, None, "#/inputs/x"),
        ({"x": 1}, None, "#/inputs/x"),
        ({"z": [1]}, None, "#/inputs"),
        ({}, None, "#/inputs"),
        ({"x": X}, ["y", "nope"], "#/outputs/1"),
        ({"x": X}, "y", "#/outputs"),
    ],
)
def test_errors_point_into_the_input(
    functions: TestClient, inputs: Any, outputs: Any, pointer: str
) -> None:
    answer = functions.post(
        "/evaluate", json={"model": "quadratic", "inputs": inputs, "outputs": outputs}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "nope" not in answer.text


def test_limits_and_what_is_not_finite(functions: TestClient) -> None:
    many = {"x": [[0.0, 0.0, 0.0]] * 600}  # 600 · 2 · 3 · 3 numbers, over 10,000
    ask(functions, 413, model="quadratic", inputs=many, outputs=["hessian_y_x_x"])
    assert len(ask(functions, model="quadratic", inputs=many)["outputs"]["y"]) == 600
    given = {"x": [[1, 2], [3, 0]], "m": [1, 2], "theta": [5, 6]}
    refused = ask(functions, 422, model="mixed", inputs=given)
    assert refused["detail"].startswith("inverse[1, 1] is not a finite number")
    assert ask(functions, model="mixed", inputs=given, outputs=["y"])["outputs"]["y"] == [17, 30]
    for whole in (0.5, 2**70):
        answer = ask(functions, 422, model="mixed", inputs=given | {"m": [1, whole]})
        assert answer["errors"][0]["pointer"] in {"#/inputs/m/1", "#/inputs/m"}
    assert functions.post("/evaluate?model=x", json={}).status_code == 422
    ask(functions, 404, model="nope", inputs={"x": X})


def test_no_more_runs_than_needed(functions: TestClient) -> None:
    def runs() -> int:
        (of,) = functions.get("/v2/models/quadratic/stats").json()["model_stats"]
        return int(of["execution_count"])

    before = runs()
    ask(functions, model="quadratic", inputs={"x": X}, outputs=["jacobian_y_x"])
    assert runs() == before + 1


def test_a_single_number_is_no_list(tmp_path: Path, serve: Callable[..., TestClient]) -> None:
    """An output without a batch may be one: f of parameters alone, ``vjp_dt``."""
    publish_scaled(tmp_path)
    client = serve(tmp_path)
    given = {"x": [1.0, 2.0], "t": 2.5}
    found = ask(client, model="scaled", inputs=given)["outputs"]
    assert found == {"y": [2.5, 5.0], "square": 6.25}
    arrays = {
        name: {
            "shape": list(np.shape(value)),
            "dtype": "float64",
            "data": {"buffer": value, "encoding": "json"},
        }
        for name, value in given.items()
    }
    answer = client.post("/tesseract/scaled/apply", json={"inputs": arrays})
    assert answer.json()["square"]["data"]["buffer"] == 6.25
    vectors = {"name": "scaled", "input": [[1.0, 2.0], [2.5]], "config": {"n": 2}}
    answer = client.post("/umbridge/Evaluate", json=vectors)
    assert answer.json()["output"] == [[2.5, 5.0], [6.25]]
