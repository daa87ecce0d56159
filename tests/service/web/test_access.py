"""Keys, host names, and pages of other origins."""

import pytest

from service.app import create_app
from service.settings import Settings
from service.web.access import UnsafeKey, read_keys

OLD, NEW = "an-old-key-of-some-length", "a-new-key-of-some-length"


@pytest.fixture
def guarded(serve, artifacts, tmp_path):
    (tmp_path / "keys").write_text(f"{OLD}\n{NEW}\n")
    return serve(artifacts, api_key_file=tmp_path / "keys")


@pytest.mark.parametrize(
    "headers",
    [{"authorization": f"Bearer {OLD}"}, {"authorization": f"bearer {NEW}"}, {"x-api-key": NEW}],
)
def test_a_key_opens(guarded, headers: dict[str, str]) -> None:
    for path in ("/models", "/metrics", "/openapi.json", "/docs", "/static/docs.js"):
        assert guarded.get(path, headers=headers).status_code == 200
    assert guarded.post("/predict", json={"x": 1}, headers=headers).status_code == 200


def test_the_documentation_says_how_a_key_is_sent(guarded, client) -> None:
    document = guarded.get("/openapi.json", headers={"x-api-key": OLD}).json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    assert document["security"] == [{name: []} for name in schemes]
    assert "security" not in client.get("/openapi.json").json()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": OLD[:-1]},
        {"x-api-key": ""},
        {"x-api-key": "ÿ".encode("latin-1")},
        {"authorization": OLD},
        {"authorization": f"Basic {OLD}"},
        {"x-health": "/health/"},
    ],
)
def test_without_one_only_health_answers(guarded, headers: dict) -> None:
    for path in ("/models", "/metrics", "/openapi.json", "/docs", "/nowhere", "/HEALTH/live"):
        answer = guarded.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.post("/predict", json={"x": 1}, headers=headers).status_code == 401
    assert guarded.get("/health/ready", headers=headers).status_code == 200


def test_key_files_that_would_not_protect_are_refused(tmp_path) -> None:
    for content in (b"", b"\n", b"short\n", b"\xff" * 20):
        path = tmp_path / "keys"
        path.write_bytes(content)
        with pytest.raises(UnsafeKey):
            read_keys(path)
    with pytest.raises(UnsafeKey):
        create_app(Settings(artifacts=tmp_path, api_key_file=tmp_path / "none"))


def test_only_our_host_names_are_answered(serve, artifacts) -> None:
    client = serve(artifacts, allowed_hosts="models.example, 10.0.0.1")
    for host in ("models.example", "MODELS.example:8000", "10.0.0.1:80"):
        assert client.get("/models", headers={"host": host}).status_code == 200
    for host in ("evil.example", "models.example.evil.example", "", "models.example:x"):
        assert client.get("/models", headers={"host": host}).status_code == 400
    assert client.get("/health/live", headers={"host": "evil.example"}).status_code == 200


def test_other_origins_only_if_they_are_set(serve, client, artifacts) -> None:
    origin = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in client.get("/models", headers=origin).headers
    shared = serve(artifacts, cors_origins="https://a.example")
    allowed = shared.get("/models", headers=origin).headers
    assert allowed["access-control-allow-origin"] == "https://a.example"
    other = shared.get("/models", headers={"origin": "https://b.example"}).headers
    assert "access-control-allow-origin" not in other
