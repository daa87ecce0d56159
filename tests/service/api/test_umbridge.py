"""UM-Bridge over functions known by heart; the real client asks in ``tests/clients``."""

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.tiny_artifacts import QUADRATIC

X = [1.0, 2.0, 3.0]
JACOBIAN = QUADRATIC @ X


def ask(client: TestClient, path: str, name: str = "quadratic", **members: Any) -> Any:
    answer = client.post(f"/umbridge/{path}", json={"name": name, "config": {}, **members})
    assert answer.status_code == 200, answer.text
    if "input" in members:
        assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == (name, "1")
    return answer.json()


def test_what_there_is(functions: TestClient) -> None:
    assert functions.head("/umbridge").status_code == 200
    names = ["bowl", "curve-mlp", "mixed", "quadratic"]
    assert functions.get("/umbridge/Info").json() == {"protocolVersion": 1.0, "models": names}
    everything = {"Evaluate": True, "Gradient": True, "ApplyJacobian": True, "ApplyHessian": True}
    for name in ("quadratic", "bowl", "curve-mlp"):
        assert ask(functions, "ModelInfo", name) == {"support": everything}
    assert ask(functions, "ModelInfo", "mixed")["support"] == everything | {
        "ApplyJacobian": False,
        "ApplyHessian": False,
    }
    assert ask(functions, "InputSizes") == {"inputSizes": [3]}
    assert ask(functions, "OutputSizes") == {"outputSizes": [2]}
    assert ask(functions, "InputSizes", "mixed", config={"n": 4}) == {"inputSizes": [8, 4, 2]}
    assert ask(functions, "OutputSizes", "mixed", config={"n": 4.0}) == {"outputSizes": [4, 8]}


def test_products(functions: TestClient) -> None:
    y = 0.5 * np.einsum("i,jil,l->j", X, QUADRATIC, X)
    assert ask(functions, "Evaluate", input=[X]) == {"output": [y.tolist()]}
    at = {"input": [X], "outWrt": 0, "inWrt": 0}
    sens, vec = np.array([2.0, -1.0]), np.array([1.0, 0.0, -2.0])
    found = ask(functions, "Gradient", **at, sens=sens.tolist())
    assert found == {"output": (sens @ JACOBIAN).tolist()}
    found = ask(functions, "ApplyJacobian", **at, vec=vec.tolist())
    assert found == {"output": (JACOBIAN @ vec).tolist()}
    at = {"input": [X], "outWrt": 0, "inWrt1": 0, "inWrt2": 0, "vec": vec.tolist()}
    found = ask(functions, "ApplyHessian", **at, sens=sens.tolist())
    assert found == {"output": np.einsum("j,jil,l->i", sens, QUADRATIC, vec).tolist()}
    # The hvp of a number takes no cotangent: sens is a factor.
    found = ask(functions, "ApplyHessian", "bowl", **at, sens=[3.0])
    assert found == {"output": (3 * QUADRATIC[0] @ vec).tolist()}


def test_curves_by_their_own_derivatives(functions: TestClient) -> None:
    at = {"name": "curve-mlp", "input": [[2.0]], "outWrt": 0}  # x³ − 2x
    assert ask(functions, "Evaluate", **at) == {"output": [[4.0]]}
    assert ask(functions, "Gradient", **at, inWrt=0, sens=[2]) == {"output": [20.0]}
    assert ask(functions, "ApplyJacobian", **at, inWrt=0, vec=[3]) == {"output": [30.0]}
    hessian = ask(functions, "ApplyHessian", **at, inWrt1=0, inWrt2=0, sens=[2], vec=[3])
    assert hessian == {"output": [72.0]}


def test_several_rows_at_once(functions: TestClient) -> None:
    x = np.arange(6.0).reshape(2, 3)
    rows = {"config": {"n": 2}, "input": [x.ravel().tolist()], "outWrt": 0, "inWrt": 0}
    y = 0.5 * np.einsum("ni,jil,nl->nj", x, QUADRATIC, x)
    assert ask(functions, "Evaluate", **rows) == {"output": [y.ravel().tolist()]}
    sens = np.arange(4.0).reshape(2, 2)
    vjp = np.einsum("nj,jil,nl->ni", sens, QUADRATIC, x)
    found = ask(functions, "Gradient", **rows, sens=sens.ravel().tolist())
    assert found == {"output": vjp.ravel().tolist()}
    hessian = {**rows, "inWrt1": 0, "inWrt2": 0, "sens": [2.0, 3.0], "vec": [1.0, 0, 0] * 2}
    scaled = [2 * QUADRATIC[0][:, 0], 3 * QUADRATIC[0][:, 0]]
    assert ask(functions, "ApplyHessian", "bowl", **hessian) == {
        "output": np.ravel(scaled).tolist()
    }


def test_parameters_and_whole_numbers(functions: TestClient) -> None:
    at = {"name": "mixed", "config": {"n": 2}, "input": [[1, 2, 3, 4], [1, 2], [5, 6]]}
    assert ask(functions, "Evaluate", **at)["output"][0] == [17, 78]
    by = ask(functions, "Gradient", **at, outWrt=0, inWrt=2, sens=[1, 1])
    assert by == {"output": [7, 10]}


@pytest.mark.parametrize(
    ("path", "change", "kind"),
    [
        ("Evaluate", {"name": "nope"}, "ModelNotFound"),
        ("ModelInfo", {"name": "nope"}, "ModelNotFound"),
        ("Evaluate", {"input": [[1.0, 2.0]]}, "InvalidInput"),
        ("Evaluate", {"input": [X, X]}, "InvalidInput"),
        ("Evaluate", {"input": [[1, 2, "3"]]}, "InvalidInput"),
        ("Evaluate", {"input": 5}, "InvalidInput"),
        ("Evaluate", {"config": {"n": 0}}, "InvalidInput"),
        ("Evaluate", {"config": {"n": "x"}}, "InvalidInput"),
        ("Evaluate", {"config": {"n": 2}}, "InvalidInput"),
        ("Gradient", {"inWrt": 1}, "InvalidInput"),
        ("Gradient", {"outWrt": -1}, "InvalidInput"),
        ("Gradient", {"sens": [1]}, "InvalidInput"),
        ("Gradient", {"sens": None}, "InvalidInput"),
        ("Gradient", {"name": "mixed", "input": [[1, 2], [1], [5, 6]], "inWrt": 1}, "InvalidInput"),
        (
            "ApplyJacobian",
            {"name": "mixed", "input": [[1, 2], [1], [5, 6]], "vec": [1, 0]},
            "UnsupportedFeature",
        ),
        ("Evaluate", {"name": "mixed", "input": [[1, 0], [1], [5, 6]]}, "InvalidOutput"),
        ("EvaluateShMem", {}, "ModelNotFound"),
    ],
)
def test_errors_have_the_protocols_types(
    functions: TestClient, path: str, change: dict[str, Any], kind: str
) -> None:
    given = {"name": "quadratic", "input": [X], "outWrt": 0, "inWrt": 0}
    given |= {"sens": [1, 1], "vec": X, "config": {}}
    answer = functions.post(f"/umbridge/{path}", json=given | change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == kind and error["message"], error
    assert "umbridge:" not in answer.text
