"""/explain: the class asked for, its map as numbers and as a picture."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from contract import pictures as imaging
from tests.tiny_artifacts import png


def test_explains_the_likeliest_class(client: TestClient) -> None:
    answer = client.post("/explain", files={"file": png((0, 250, 0), (50, 50))}).json()
    assert answer["saliency"]["label"] == answer["top"][0]["label"] == "green"
    assert answer["image"]["width"] == 50
    # The tiny artifact's map is the brightness times class + 1.
    assert np.array(answer["saliency"]["map"]) == pytest.approx(np.full((32, 32), 250 / 3 * 2))


def test_shows_the_picture_as_the_network_sees_it(client: TestClient) -> None:
    content = png((0, 250, 0), (50, 70))
    answer = client.post("/explain", files={"file": content}).json()
    seen = Image.open(BytesIO(base64.b64decode(answer["seen"].partition(",")[2])))
    expected = imaging.decode(imaging.open_image(content, 10**6, 10**4), 32).pixels
    np.testing.assert_array_equal(np.asarray(seen), expected)


def test_explains_the_class_asked_for(client: TestClient) -> None:
    answer = client.post("/explain?label=blue&top_k=1", files={"file": png((0, 250, 0))}).json()
    assert answer["saliency"]["index"] == 2
    assert answer["saliency"]["map"][0][0] == pytest.approx(250 / 3 * 3)
    assert answer["top"] == [answer["top"][0]]


def test_the_picture_is_most_opaque_where_the_map_is_largest(client: TestClient) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[5, 7] = 200
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    answer = client.post("/explain", files={"file": stream.getvalue()}).json()
    kind, _, content = answer["saliency"]["png"].partition(",")
    assert kind == "data:image/png;base64"
    alpha = np.asarray(Image.open(BytesIO(base64.b64decode(content))))[..., 3]
    assert alpha[5, 7] == 255
    assert alpha.sum() == 255


def test_refuses(client: TestClient) -> None:
    two = [("file", png((1, 1, 1)))] * 2
    assert client.post("/explain", files=two).status_code == 400
    unknown = client.post("/explain?label=purple", files={"file": png((1, 1, 1))})
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["parameter"] == "label"
    assert "red, green, blue" in unknown.text
    assert "purple" not in unknown.text
