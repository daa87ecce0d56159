"""Tesseract over functions known by heart; the real clients ask in ``tests/clients``."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from tests.tiny_artifacts import QUADRATIC

X = np.array([1.0, 2.0, 3.0])
JACOBIAN = QUADRATIC @ X


def encode(array: Any, encoding: str = "json") -> dict[str, Any]:
    array = np.asarray(array)
    text = base64.b64encode(array.tobytes()).decode()
    buffer = text if encoding == "base64" else array.tolist()
    data = {"buffer": buffer, "encoding": encoding}
    return {"shape": list(array.shape), "dtype": str(array.dtype), "data": data}


def decode(found: Any) -> Any:
    if found.get("object_type") != "array":
        return {name: decode(item) for name, item in found.items()}
    data = found["data"]
    if data["encoding"] == "base64":
        content = base64.b64decode(data["buffer"])
        return np.frombuffer(content, found["dtype"]).reshape(found["shape"])
    return np.array(data["buffer"], found["dtype"]).reshape(found["shape"])


def ask(
    client: TestClient, path: str, document: Any, model: str = "quadratic", **headers: str
) -> Any:
    answer = client.post(f"/tesseract/{model}/{path}", json=document, headers=headers)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == (model, "1")
    return answer.json()


@pytest.mark.parametrize("encoding", ["json", "raw", "base64"])
@pytest.mark.parametrize("lone", [True, False])
def test_every_product(functions: TestClient, encoding: str, lone: bool) -> None:
    x = X if lone else np.array([X, 2 * X])
    accept = {"accept": "application/json+base64" if encoding == "base64" else "application/json"}
    inputs = {"x": encode(x, encoding)}

    def product(path: str, **members: Any) -> Any:
        return decode(ask(functions, path, {"inputs": inputs, **members}, **accept))

    y = 0.5 * np.einsum("...i,jil,...l->...j", x, QUADRATIC, x)
    assert np.array_equal(product("apply")["y"], y)
    each = np.einsum("jil,...l->...ji", QUADRATIC, x)
    found = product("jacobian", jac_inputs=["x"], jac_outputs=["y"])["y"]["x"]
    if lone:
        assert np.array_equal(found, each)
    else:
        assert found.shape == (2, 2, 2, 3)
        assert np.array_equal(found[0, :, 0], each[0]) and np.array_equal(found[1, :, 1], each[1])
        assert not found[0, :, 1].any() and not found[1, :, 0].any()
    tangent = np.ones_like(x)
    jvp = product(
        "jacobian_vector_product",
        jvp_inputs=["x"],
        jvp_outputs=["y"],
        tangent_vector={"x": encode(tangent, encoding)},
    )
    assert np.array_equal(jvp["y"], each.sum(-1))
    vjp = product(
        "vector_jacobian_product",
        vjp_inputs=["x"],
        vjp_outputs=["y"],
        cotangent_vector={"y": encode(np.ones_like(y), encoding)},
    )
    assert np.array_equal(vjp["x"], each.sum(-2))
    shapes = ask(
        functions, "abstract_eval", {"inputs": {"x": {"shape": list(x.shape), "dtype": "float64"}}}
    )
    assert shapes == {"y": {"shape": list(y.shape), "dtype": "float64"}}


def test_a_jacobian_without_that_function(functions: TestClient) -> None:
    # One run of vjp with a cotangent for each element of the output; float32 comes from JAX.
    inputs = {
        "x": encode(np.array([[2.0, 4.0]], np.float32), "base64"),
        "m": encode([3]),
        "theta": encode([5.0, 6.0]),
    }
    document = {"inputs": inputs, "jac_inputs": ["x", "theta"], "jac_outputs": ["inverse", "y"]}
    found = decode(ask(functions, "jacobian", document, "mixed"))
    assert found["inverse"]["x"].tolist() == [[[[-0.25, 0.0]], [[0.0, -0.0625]]]]
    assert found["y"]["x"].tolist() == [[[15.0, 18.0]]]
    assert found["y"]["theta"].tolist() == [[6.0, 12.0]]
    curve = {"inputs": {"x": encode([2.0])}, "jac_inputs": ["x"], "jac_outputs": ["y"]}
    assert decode(ask(functions, "jacobian", curve, "curve-mlp"))["y"]["x"].tolist() == [[10.0]]


def test_a_jacobian_is_made_in_pieces_of_products(
    functions: TestClient,
    function_artifacts: Path,
    serve: Callable[..., TestClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All at once, an output of 100,000 numbers would take 80 GB of cotangents."""
    sizes: list[int] = []
    eye = np.eye

    def noted(rows: int, columns: int, *more: int, **options: Any) -> Any:
        sizes.append(rows)
        return eye(rows, columns, *more, **options)

    monkeypatch.setattr("service.api.derivatives.np.eye", noted)
    small = serve(function_artifacts, max_numbers=7)
    inputs = {"x": encode([[2.0, 4.0]]), "m": encode([3]), "theta": encode([5.0, 6.0])}
    for output, by in (("inverse", ["x"]), ("y", ["x", "theta"])):
        document = {"inputs": inputs, "jac_inputs": by, "jac_outputs": [output]}
        found = decode(ask(small, "jacobian", document, "mixed"))
        whole = decode(ask(functions, "jacobian", document, "mixed"))
        assert all(np.array_equal(found[output][x], whole[output][x]) for x in by)
    assert sizes == [1, 1, 2, 1, 1]  # of "inverse" two pieces, and one without the limit
    monkeypatch.setattr("service.api.derivatives.MOST_PIECES", 0)
    refused = small.post("/tesseract/mixed/jacobian", json=document)
    assert refused.status_code == 413 and "without 'jacobian'" in refused.json()["detail"]


def test_infinities_are_carried_in_base64_only(functions: TestClient) -> None:
    inputs = {"x": encode([[2.0, 0.0]]), "m": encode([3]), "theta": encode([5.0, 6.0])}
    answer = functions.post("/tesseract/mixed/apply", json={"inputs": inputs})
    assert answer.status_code == 422 and "inverse[0, 1]" in answer.json()["detail"][0]["msg"]
    found = ask(functions, "apply", {"inputs": inputs}, "mixed", accept="application/json+base64")
    assert decode(found)["inverse"].tolist() == [[0.5, np.inf]]


def test_the_models_own_document(functions: TestClient) -> None:
    assert functions.get("/tesseract/quadratic/health").json() == {"status": "ok"}
    document = functions.get("/tesseract/mixed/openapi.json").json()
    validate(document)
    assert "/vector_jacobian_product" in document["paths"]
    assert "/jacobian_vector_product" not in document["paths"]
    schemas = document["components"]["schemas"]
    assert list(schemas["Apply_InputSchema"]["properties"]) == ["x", "m", "theta"]
    assert list(schemas["ApplyInputSchema"]["differentiable_arrays"]) == ["x", "theta"]
    assert functions.get("/tesseract/nope/openapi.json").status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "loc"),
    [
        ({"inputs": {}}, 422, ["body", "inputs"]),
        ({"inputs": {"z": encode(X)}}, 422, ["body", "inputs"]),
        ({"inputs": {"x": encode(X[:2])}}, 422, ["body", "inputs", "x"]),
        ({"inputs": {"x": encode(X) | {"shape": [4]}}}, 422, None),
        ({"inputs": {"x": encode(X, "base64") | {"dtype": "float32"}}}, 422, None),
        ({"inputs": {"x": encode(X, "base64") | {"dtype": "object"}}}, 422, None),
        ({"inputs": {"x": encode(X) | {"data": {"buffer": "é", "encoding": "base64"}}}}, 422, None),
        ({"inputs": {"x": [1, 2, 3]}}, 422, ["body", "inputs", "x"]),
        ({"inputs": {"x": encode(X) | {"shape": ["4", True]}}}, 422, None),
        ({"jac_inputs": ["z"]}, 422, ["body", "jac_inputs", "0"]),
        ({"jac_outputs": []}, 422, ["body", "jac_outputs"]),
        ({"inputs": {"x": encode(np.ones((100, 3)))}}, 413, None),  # 100 · 2 · 100 · 3 numbers
    ],
)
def test_errors_are_a_list_with_places(
    functions: TestClient, change: dict[str, Any], status: int, loc: Any
) -> None:
    given = {"inputs": {"x": encode(X)}, "jac_inputs": ["x"], "jac_outputs": ["y"]}
    answer = functions.post("/tesseract/quadratic/jacobian", json=given | change)
    assert answer.status_code == status, answer.text
    if status == 422:
        (error, *_) = answer.json()["detail"]
        assert error["type"] and error["msg"]
        assert loc is None or error["loc"] == loc
    (error, *_) = functions.get(f"/tesseract/{'q' * 65}/health").json()["detail"]
    assert error["loc"] == ["path", "model"]
