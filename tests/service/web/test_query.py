"""A query parameter that nobody reads is an error, not silence."""

import pytest
from starlette.testclient import TestClient

from service.api.w10 import EXAMPLE
from tests.tiny_artifacts import png


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/predict", {"x": 1}),
        ("/gradient", {"x": 1}),
        ("/w10-gradient", EXAMPLE),
        ("/evaluate", {"model": "curve-mlp", "inputs": {"x": [1.0]}}),
    ],
)
def test_what_belongs_into_the_body_is_refused_elsewhere(
    client: TestClient, path: str, document: dict
) -> None:
    assert client.post(path, json=document).status_code == 200
    answer = client.post(f"{path}?model=curve-poly", json=document)
    assert answer.status_code == 422
    assert "into the JSON body" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/classify", "/explain"])
def test_an_unknown_parameter_is_refused(client: TestClient, path: str) -> None:
    answer = client.post(f"{path}?topk=3", content=b"x", headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert "not known here" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/classify", "/explain"])
def test_a_parameter_given_twice_or_as_a_form_field_is_refused(
    client: TestClient, path: str
) -> None:
    picture = png((250, 0, 0))
    headers = {"content-type": "image/png"}
    twice = client.post(f"{path}?model=nope&model=cifar-improved", content=picture, headers=headers)
    assert twice.status_code == 422 and "given twice" in twice.json()["detail"]
    form = client.post(path, files={"file": picture}, data={"model": "nope"})
    assert form.status_code == 422 and "goes into the query" in form.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/health/live", "/metrics", "/v2/health/live"])
def test_pages_and_protocols_pass_over_them(client: TestClient, path: str) -> None:
    assert client.get(f"{path}?utm_source=x").status_code == 200
