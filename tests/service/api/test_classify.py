"""/classify: forms, raw bodies, limits, and what the answer says."""

import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from contract.pictures import decode as real_decode
from service.web.uploads import places
from tests.hostile.pictures import colour_table_profile, padded_zlib, png_of_stream
from tests.tiny_artifacts import encoded, png, publish_classifier, publish_curve

RED, GREEN, BLUE = (250, 5, 5), (5, 250, 5), (5, 5, 250)


def test_classifies_a_file(client: TestClient) -> None:
    answer = client.post("/classify", files={"file": ("any.txt", png(RED, (40, 30)), "text/plain")})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("cifar-improved", 1)
    (result,) = body["results"]
    assert result["image"] == {"format": "PNG", "width": 40, "height": 30}
    assert result["top"][0]["label"] == "red"
    assert sum(t["probability"] for t in result["top"]) == pytest.approx(1)


def test_classifies_several_in_order(client: TestClient) -> None:
    files = [("file", ("a", png(colour))) for colour in (RED, GREEN, BLUE, GREEN)]
    answer = client.post("/classify?top_k=1&model=cifar-improved", files=files).json()
    labels = [result["top"][0]["label"] for result in answer["results"]]
    assert labels == ["red", "green", "blue", "green"]
    assert all(len(result["top"]) == 1 for result in answer["results"])


@pytest.mark.parametrize(
    "kind", ["image/png", "IMAGE/PNG", "image/x-anything", "application/octet-stream"]
)
def test_takes_the_image_as_the_body(client: TestClient, kind: str) -> None:
    answer = client.post("/classify", content=png(BLUE), headers={"content-type": kind})
    assert answer.json()["results"][0]["top"][0]["label"] == "blue"


def test_a_large_picture_takes_the_other_road_to_the_same_answer(client: TestClient) -> None:
    photo = encoded(Image.new("RGB", (1600, 1200), GREEN), "JPEG")
    answer = client.post("/classify", files={"file": photo})
    assert answer.json()["results"][0]["top"][0]["label"] == "green"


def _with_profile(kind: str) -> bytes:
    profile = colour_table_profile(len(kind))
    return encoded(Image.new("RGB", (32, 32), GREEN), kind, icc_profile=profile)


@pytest.mark.parametrize(
    ("content", "pool"),
    [
        (encoded(Image.new("RGB", (32, 32), GREEN), "PNG"), None),
        (encoded(Image.new("RGB", (32, 32), GREEN), "JPEG"), None),
        (png_of_stream((1, 1), padded_zlib(b"\0" + bytes(GREEN), 500_000)), "photos"),
        (png_of_stream((1, 1), padded_zlib(b"\0" + bytes(GREEN), 2_000_000)), "large"),
        (encoded(Image.new("P", (32, 32)), "GIF") + bytes(1_000_000), "photos"),
        *((_with_profile(kind), "photos") for kind in ("PNG", "JPEG", "WEBP")),
    ],
)
def test_what_takes_long_for_its_size_is_not_decoded_on_the_event_loop(
    client: TestClient, content: bytes, pool: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def decode(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real_decode(*arguments)

    monkeypatch.setattr("service.api.pictures.imaging.decode", decode)
    assert client.post("/classify", files={"file": content}).status_code == 200
    (thread,) = threads
    assert thread.startswith(pool) if pool else not thread.startswith(("photos", "large"))


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("top_k=0", "top_k"), ("top_k=x", "top_k"), ("top_k=1e9", "top_k"), ("nonsense=1", None)],
)
def test_refuses_a_bad_query(client: TestClient, query: str, parameter: str | None) -> None:
    answer = client.post(f"/classify?{query}", files={"file": png(RED)})
    assert answer.status_code == 422
    assert answer.json()["errors"][0].get("parameter") == parameter


def test_unknown_model(client: TestClient) -> None:
    assert client.post("/classify?model=nope", files={"file": png(RED)}).status_code == 404
    assert client.post("/classify?model=curve-mlp", files={"file": png(RED)}).status_code == 404


def test_refuses_what_is_no_image(client: TestClient) -> None:
    assert client.post("/classify", json={}).status_code == 415
    assert client.post("/classify", files={"file": b"text"}).status_code == 415
    assert client.post("/classify", files={"file": b""}).status_code == 400
    assert client.post("/classify", files={"other": png(RED)}).status_code == 400
    assert client.post("/classify", files={"file": png(RED)[:60]}).status_code == 400


def test_says_which_of_several_files_was_bad(client: TestClient) -> None:
    files = [("file", png(RED)), ("file", b"text")]
    answer = client.post("/classify", files=files)
    assert answer.status_code == 415
    assert answer.json()["errors"][0]["pointer"] == "#/file/1"


def test_limits(serve, artifacts) -> None:
    client = serve(artifacts, max_images=2, max_upload_bytes=3000, max_pixels=1500)
    assert client.post("/classify", files=[("file", png(RED))] * 2).status_code == 200
    assert client.post("/classify", files=[("file", png(RED))] * 3).status_code == 413
    assert client.post("/classify", files={"file": png(RED, (40, 40))}).status_code == 413
    assert client.post("/classify", files={"file": b"0" * 3000}).status_code == 413

    def stream():
        for _ in range(10):
            yield b"0" * 500

    chunked = client.post("/classify", content=stream(), headers={"content-type": "image/png"})
    assert chunked.status_code == 413


def test_large_uploads_take_as_many_places_as_they_have_mebibytes() -> None:
    assert places([b"x"]) == 1
    assert places([b"x"] * 5) == 5
    assert places([bytes(3 * 1024 * 1024)]) == 3


def test_says_how_familiar_a_picture_is_where_the_model_tells(serve, tmp_path: Path) -> None:
    publish_classifier(tmp_path, familiar=True)
    publish_classifier(tmp_path, "silent")
    client = serve(tmp_path)
    files = [("file", ("a", png(RED))), ("file", ("b", png(GREEN)))]
    results = client.post("/classify", files=files).json()["results"]
    assert [result["familiar"] for result in results] == pytest.approx([250 / 255, 5 / 255])
    assert results[0]["top"][0]["label"] == "red"
    (silent,) = client.post("/classify?model=silent", files={"file": png(RED)}).json()["results"]
    assert silent.keys() == {"top", "image"}
    explained = client.post("/explain", files={"file": png(RED)}).json()
    assert explained["familiar"] == pytest.approx(250 / 255)
    assert explained["saliency"]["label"] == "red"
    body = {
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [51] * 3072}
        ]
    }
    outputs = client.post("/v2/models/cifar-improved/infer", json=body).json()["outputs"]
    found = {output["name"]: output["data"] for output in outputs}
    assert found["familiar"] == pytest.approx([0.2])


def test_the_only_classifier_answers_where_the_default_one_is_not_there(
    serve, tmp_path: Path
) -> None:
    publish_classifier(tmp_path, "photos")
    publish_curve(tmp_path)
    client = serve(tmp_path)
    assert client.post("/classify", files={"file": png(RED)}).json()["model"] == "photos"
    assert client.post("/explain", files={"file": png(RED)}).json()["model"] == "photos"
    assert client.get("/models").json()["default_classifier"] == "photos"
    # Asked for by name, the absent one is not replaced.
    assert (
        client.post("/classify?model=cifar-improved", files={"file": png(RED)}).status_code == 503
    )


def test_the_default_classifier_is_a_setting(serve, tmp_path: Path) -> None:
    publish_classifier(tmp_path, "photos")
    publish_classifier(tmp_path, "plants")
    unset = serve(tmp_path)
    answer = unset.post("/classify", files={"file": png(RED)})
    assert answer.status_code == 404
    assert "?model=: photos, plants." in answer.json()["detail"]
    assert unset.get("/models").json()["default_classifier"] is None
    client = serve(tmp_path, default_classifier="plants")
    assert client.post("/classify", files={"file": png(RED)}).json()["model"] == "plants"
    assert client.get("/models").json()["default_classifier"] == "plants"
    for path in ("/classify", "/explain"):
        parameters = client.get("/openapi.json").json()["paths"][path]["post"]["parameters"]
        (model,) = (p for p in parameters if p["name"] == "model")
        # In words: generated clients send a default, and would miss the only classifier there is.
        assert "default" not in model["schema"]
        assert model["description"].endswith("by default: plants, unless another is the only one")


def test_a_default_classifier_that_was_refused_is_not_replaced(serve, tmp_path: Path) -> None:
    publish_classifier(tmp_path, "photos")
    artifact = publish_classifier(tmp_path)
    (artifact.folder / "probabilities.onnx").write_bytes(b"damaged")
    answer = serve(tmp_path).post("/classify", files={"file": png(RED)})
    assert answer.status_code == 503
    assert "version 1 was refused" in answer.json()["detail"]
