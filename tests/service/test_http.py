"""What holds for every answer: ids, headers, problem documents, documentation, no PyTorch."""

import gc
import json
import logging
import subprocess
import sys

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from service.settings import Settings
from service.web.errors import BELOW, Problem


def test_every_answer_has_a_request_id(client: TestClient) -> None:
    first, second = client.get("/health/live"), client.get("/nowhere")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    given = client.get("/health/live", headers={"x-request-id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    odd = client.get("/health/live", headers={"x-request-id": "a b;c"})
    assert odd.headers["x-request-id"] != "a b;c"


def test_every_answer_has_security_headers(client: TestClient) -> None:
    for path in ("/health/live", "/nowhere", "/docs", "/static/docs.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert ("content-security-policy" in headers) == headers["content-type"].startswith(
            "text/html"
        )
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("POST", "/health/live", 405),
        ("DELETE", "/models/curve-mlp", 405),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/static", 404),
    ],
)
def test_routing_errors_are_problems(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/models", "/docs", "/metrics"])
def test_head_is_answered_as_get_without_the_content(client: TestClient, path: str) -> None:
    answer = client.head(path)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-type"] == client.get(path).headers["content-type"]


def test_a_405_allows_what_is_answered(client: TestClient) -> None:
    assert client.head("/predict").headers["allow"] == "POST"
    assert client.post("/health/live").headers["allow"] == "GET, HEAD"


def test_the_access_log_has_one_line_a_request(client: TestClient, caplog) -> None:
    logger = logging.getLogger("gradserve")
    logger.addHandler(caplog.handler)
    try:
        client.get("/models/curve-mlp%0aforged")
    finally:
        logger.removeHandler(caplog.handler)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "gradserve.access"]
    assert line.startswith("GET /models/curve-mlp\\nforged 404 ")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_documentation_needs_no_other_host(client: TestClient, page: str) -> None:
    text = client.get(page).text
    assert "http" not in text.replace("http-equiv", "")
    for name in ("swagger-ui/swagger-ui-bundle.js", "swagger-ui/LICENSE", "redoc/LICENSE"):
        assert client.get(f"/static/vendor/{name}").status_code == 200


def named(document: dict, schema: dict) -> dict:
    """The schema that a reference names."""
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


def test_openapi_examples_work_when_pasted(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    tried = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body:
                schema = named(document, body["schema"])
                fields = schema["properties"].items()
                # Where the whole has no example, documentation puts those of its fields together.
                composed = {name: f["examples"][0] for name, f in fields if "examples" in f}
                for example in schema.get("examples", [composed]):
                    there = path.replace("{model}", "curve-mlp").replace("{number}", "1")
                    assert client.request(method, there, json=example).status_code == 200, path
                    tried += 1
    assert tried >= 3


def test_openapi_describes_every_field(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    references = json.dumps(document)
    for name, schema in document["components"]["schemas"].items():
        assert f'"#/components/schemas/{name}"' in references
        assert schema.get("description") or name == "JsonValue", name  # pydantic's, any JSON
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            fields = named(document, body["schema"])["properties"] if body else {}
            for field in fields.values():
                assert field["description"]


def test_the_service_never_imports_pytorch(artifacts) -> None:
    script = (
        "import sys, time\n"
        "from starlette.testclient import TestClient\n"
        "from service import __main__, command\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "from service.api.w10 import EXAMPLE\n"
        f"with TestClient(create_app(Settings(artifacts={str(artifacts)!r}))) as c:\n"
        "    while c.get('/health/ready').status_code != 200: time.sleep(0.01)\n"
        "    assert c.post('/gradient', json={'x': 1}).status_code == 200\n"
        "    assert c.post('/w10-gradient', json=EXAMPLE).status_code == 200\n"
        "banned = {'torch', 'onnx', 'onnxscript', 'torchvision', 'matplotlib', 'training'}\n"
        "sys.exit(', '.join(sorted(banned & sys.modules.keys())) or None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSERVE_REQUIRE", "a, b")
    monkeypatch.setenv("GRADSERVE_PIN", "a=2,b=3")
    monkeypatch.setenv("GRADSERVE_PRECISION", "fp32")
    settings = Settings()
    assert settings.require == ("a", "b")
    assert settings.pin == {"a": 2, "b": 3}
    assert settings.precision == "fp32"
    monkeypatch.setenv("GRADSERVE_PIN", "a")
    with pytest.raises(ValidationError, match="model=version"):
        Settings()


@pytest.mark.parametrize("value", ["bytes=5-1,abc", "bytes=" + ",".join(["1-2"] * 2000), "x"])
def test_static_files_come_whole_whatever_range_is_asked_for(client, value: str) -> None:
    whole = client.get("/static/docs.js")
    part = client.get("/static/docs.js", headers={"range": value})
    assert (part.status_code, part.content) == (200, whole.content)


GIF = {"content-type": "image/gif"}
REFUSED = {
    "no picture": (
        "/classify",
        {"content": b"no picture", "headers": {"content-type": "image/gif"}},
    ),
    "no pictures": ("/classify", {"files": [("file", b"none"), ("file", b"none")]}),
    "nothing to explain": ("/explain", {"content": b"none", "headers": GIF}),
    "no number": ("/predict", {"json": {"x": "bad"}}),
    "no JSON": ("/gradient", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "no such model": ("/evaluate", {"json": {"model": "none", "inputs": {}}}),
    "no such input": ("/evaluate", {"json": {"model": "curve-mlp", "inputs": {"z": [1]}}}),
    "no matrix": ("/w10-gradient", {"json": {"input": [1]}}),
    "no tensor": ("/v2/models/curve-mlp/infer", {"json": {"inputs": [{"name": "x"}]}}),
    "no vector": ("/umbridge/Evaluate", {"json": {"name": "curve-mlp", "input": [[[1]]]}}),
    "no array": ("/tesseract/curve-mlp/apply", {"json": {"inputs": {"x": "bad"}}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_is_gone_with_its_request(client: TestClient, name: str) -> None:
    """One that is part of a cycle keeps the body in memory until the garbage collector runs."""
    path, sent = REFUSED[name]
    gc.collect()
    gc.disable()
    try:
        assert client.post(path, **sent).status_code >= 400
        left = [one for one in gc.get_objects() if isinstance(one, (Problem, *BELOW))]
    finally:
        gc.enable()
    assert [one for one in left if one.__traceback__ is not None] == []
