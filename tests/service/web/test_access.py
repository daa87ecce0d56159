"""Keys, host names, and pages of other origins."""

import os

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


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf" + OLD.encode() + b"\r\n")
    assert read_keys(tmp_path / "keys") == (OLD.encode(),)


def test_the_key_file_is_read_again_when_it_changes(guarded, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("service.web.access.RECHECK_SECONDS", 0.0)
    path = tmp_path / "keys"

    def status(key: str) -> int:
        return guarded.get("/models", headers={"x-api-key": key}).status_code

    path.write_text("a-third-key-of-some-length")
    assert (status(OLD), status("a-third-key-of-some-length")) == (401, 200)
    path.write_text("short")  # unusable: what was read before stays
    assert status("a-third-key-of-some-length") == 200
    path.unlink()
    assert status("a-third-key-of-some-length") == 200
    (tmp_path / "new").write_text(OLD)
    os.replace(tmp_path / "new", path)  # noqa: PTH105
    assert (status(OLD), status("a-third-key-of-some-length")) == (200, 401)


def test_readiness_gives_reasons_to_those_with_a_key_only(serve, tmp_path) -> None:
    (tmp_path / "keys").write_text(OLD)
    (tmp_path / "artifacts").mkdir()
    client = serve(tmp_path / "artifacts", api_key_file=tmp_path / "keys", require="curve-mlp")
    told = client.get("/health/ready", headers={"x-api-key": OLD})
    untold = client.get("/health/ready")
    assert (told.status_code, untold.status_code) == (503, 503)
    assert [item["detail"] for item in untold.json()["errors"]] == ["curve-mlp"]
    assert len(told.json()["errors"][0]["detail"]) > len("curve-mlp: ")


def test_probes_of_the_inference_protocol_need_neither_key_nor_name(serve, artifacts, tmp_path):
    (tmp_path / "keys").write_text(OLD)
    client = serve(artifacts, api_key_file=tmp_path / "keys", allowed_hosts="models.example")
    for path in ("/v2/health/live", "/v2/health/ready", "/health/live", "/health/ready"):
        assert client.get(path, headers={"host": "10.0.0.7:8000"}).status_code == 200
    assert client.get("/v2", headers={"host": "models.example"}).status_code == 401


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
