"""The OpenAPI document: valid, whole, and fit for generating clients."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from service.api.v2_messages import EXAMPLE as INFER
from service.api.w10 import EXAMPLE as W10
from tests.tiny_artifacts import png, publish_classifier


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_it_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "#/components/schemas/ProblemDetails" in found
    for reference in found:
        node: Any = document
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


def test_no_two_schemas_share_a_name(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    titles = Counter(schema.get("title", name) for name, schema in schemas.items())
    assert [title for title, count in titles.items() if count > 1] == []
    assert [name for name in schemas if "__" in name] == []  # how FastAPI tells namesakes apart


def test_every_good_answer_has_a_type(document: dict[str, Any]) -> None:
    """Else generated clients give None or a bare dictionary for it."""
    untyped = [
        f"{method} {path}: {kind}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for kind, content in operation["responses"]["200"]["content"].items()
        if not content.get("schema")
    ]
    assert untyped == []


def defaults(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The members of a schema that have a default, with it."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    members = schema.get("properties", {})
    return {name: of["default"] for name, of in members.items() if "default" in of}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"x": [1, 2]}),
        ("/gradient", {"x": [1, 2]}),
        ("/w10-gradient", W10),
        ("/v2/models/{model}/infer", INFER),
        ("/evaluate", {"model": "curve-mlp", "inputs": {"x": [1, 2]}}),
        ("/v2/repository/index", {}),
    ],
)
def test_a_default_that_is_sent_changes_nothing(
    client: TestClient, document: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    """Generated clients send all of them."""
    content = document["paths"][path]["post"]["requestBody"]["content"]
    every = defaults(document, content["application/json"]["schema"]) | body
    path = path.replace("{model}", "curve-mlp")
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert client.post(path, json=every).json() == answer.json()


@pytest.mark.parametrize("path", ["/classify", "/explain"])
def test_a_default_parameter_that_is_sent_changes_nothing(
    document: dict[str, Any], path: str, serve: Any, tmp_path: Path
) -> None:
    """Whatever classifier is the one that answers."""
    publish_classifier(tmp_path, "photos")
    client = serve(tmp_path)
    parameters = document["paths"][path]["post"]["parameters"]
    every = {
        p["name"]: p["schema"]["default"]
        for p in parameters
        if p["schema"].get("default") is not None
    }
    assert every == {"top_k": 5}
    files = {"file": png((250, 0, 0))}
    answer = client.post(path, files=files)
    assert answer.status_code == 200, answer.text
    assert client.post(path, files=files, params=every).json() == answer.json()


def test_request_bodies_have_names(document: dict[str, Any]) -> None:
    for path, name in (("/gradient", "GradientQuery"), ("/v2/models/{model}/infer", "InferQuery")):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith(f"/{name}")
