"""The Open Inference Protocol over the tiny artifacts: f(x) = x³ − 2x and its derivatives."""

import base64
import gzip
import json
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api import tesseract, v2
from service.api.v2_messages import EXAMPLE
from service.api.w10 import EXAMPLE as W10
from tests.hostile.pictures import padded_zlib
from tests.tiny_artifacts import png, publish_all, publish_scaled

X = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}


def infer(client: TestClient, model: str, document: Any, status: int = 200) -> dict[str, Any]:
    answer = client.post(f"/v2/models/{model}/infer", json=document)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"]
    return answer.json()


def outputs(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer["outputs"]}


def test_describes_server_and_models(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "gradserve"
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    for path in ("/v2/models/curve-mlp", "/v2/models/curve-mlp/versions/1"):
        curve = client.get(path).json()
        assert curve["versions"] == ["1"]
        assert curve["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1]}]
        assert [o["name"] for o in curve["outputs"]] == ["y", "gradient", "gradient2", "gradient3"]
        assert client.get(f"{path}/ready").json()["ready"]
    image = client.get("/v2/models/cifar-improved").json()["inputs"][0]
    assert image == {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}


def test_every_derivative_is_an_output(client: TestClient) -> None:
    answer = infer(client, "curve-mlp", {"id": "a-1", "inputs": [X]})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "curve-mlp",
        "1",
        "a-1",
    )
    found = outputs(answer)
    assert found["y"] == pytest.approx([-1, 4])
    assert found["gradient"] == pytest.approx([1, 10])
    assert found["gradient2"] == pytest.approx([6, 12])
    assert found["gradient3"] == pytest.approx([6, 6])


def test_only_what_is_wanted_is_given(client: TestClient) -> None:
    answer = infer(client, "curve-mlp", {"inputs": [X], "outputs": [{"name": "gradient2"}]})
    assert list(outputs(answer)) == ["gradient2"]
    assert list(outputs(infer(client, "curve-mlp", EXAMPLE))) == ["y", "gradient"]


def test_images_flat_or_nested_with_and_without_their_saliency(client: TestClient) -> None:
    pixels = np.zeros((2, 32, 32, 3), int)
    pixels[0, ..., 0], pixels[1, ..., 2] = 250, 250
    image = {"name": "image", "shape": [2, 32, 32, 3], "datatype": "UINT8"}
    nested = infer(client, "cifar-improved", {"inputs": [image | {"data": pixels.tolist()}]})
    assert outputs(nested)["probabilities"].argmax(1).tolist() == [0, 2]
    assert list(outputs(nested)) == ["probabilities"]
    wanted = {"name": "class", "shape": [2], "datatype": "INT64", "data": [0, 1]}
    flat = image | {"data": pixels.ravel().tolist()}
    both = outputs(infer(client, "cifar-improved", {"inputs": [wanted, flat]}))
    assert both["saliency"].shape == (2, 32, 32)
    assert both["saliency"][1, 0, 0] == pytest.approx(250 / 3 * 2)


def test_many_rows_come_back_in_order(client: TestClient) -> None:
    x = [i / 100 for i in range(5000)]
    tensor = {"name": "x", "shape": [5000], "datatype": "FP64", "data": x}
    found = outputs(infer(client, "curve-mlp", {"inputs": [tensor]}))
    assert found["gradient"] == pytest.approx([3 * v * v - 2 for v in x])


def test_sigmoid_conv(client: TestClient) -> None:
    names = {"x": "input", "kernel": "kernel", "weights": "weights"}
    tensors = [
        {"name": n, "datatype": "FP64", "shape": list(np.shape([W10[k]])), "data": [W10[k]]}
        for n, k in names.items()
    ]
    tensors.append({"name": "label", "datatype": "FP64", "shape": [1], "data": [1]})
    found = outputs(infer(client, "sigmoid-conv", {"inputs": tensors}))
    assert found["kernel_gradient"][0] == pytest.approx(np.array(W10["kernel"]))
    assert found["loss"] == pytest.approx([1])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "z"}, 422),
        ({"shape": [3]}, 422),
        ({"shape": [1, 2]}, 422),
        ({"shape": [0], "data": []}, 422),
        ({"shape": [], "data": [1]}, 422),
        ({"shape": [-2]}, 422),
        ({"shape": [10_000_000] * 4}, 422),
        ({"datatype": "FP32"}, 422),
        ({"datatype": "BYTES"}, 422),
        ({"datatype": "INT64", "data": [0.5, 1]}, 422),
        ({"data": [1, True]}, 422),
        ({"data": ["1", "2"]}, 422),
        ({"data": [[1], [2, 3]], "shape": [3]}, 422),
        ({"data": 5}, 422),
        ({"data": [1e300, 1]}, 422),
        ({"data": None}, 422),
        ({"data": [[0.5, [1]]]}, 422),
        ({"datatype": "FP16"}, 422),
        ({"datatype": "BOOL"}, 422),
        ({"parameters": {"binary_data_size": 16}}, 422),
        ({"parameters": {"binary_data_size": True}, "data": None}, 422),
    ],
)
def test_refuses_bad_tensors(client: TestClient, change: dict[str, Any], status: int) -> None:
    infer(client, "curve-mlp", {"inputs": [X | change]}, status)


def test_refuses_what_does_not_fit_together(client: TestClient) -> None:
    infer(client, "curve-mlp", {"inputs": []}, 422)
    infer(client, "curve-mlp", {"inputs": [X], "outputs": [{"name": "nope"}]}, 422)
    infer(client, "curve-mlp", {"inputs": [X], "id": "a\nb"}, 422)
    infer(client, "nope", {"inputs": [X]}, 404)
    pixels = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072}
    needs = infer(
        client, "cifar-improved", {"inputs": [pixels], "outputs": [{"name": "saliency"}]}, 422
    )
    assert needs["errors"][0]["detail"] == "class: saliency needs this input as well"
    alone = {"name": "class", "shape": [1], "datatype": "INT64", "data": [0]}
    infer(client, "cifar-improved", {"inputs": [alone]}, 422)
    two = alone | {"shape": [2], "data": [0, 0]}
    infer(client, "cifar-improved", {"inputs": [pixels, two]}, 422)
    infer(client, "cifar-improved", {"inputs": [pixels, alone | {"data": [10**6]}]}, 422)
    assert client.get("/v2/models/curve-mlp/versions/2").status_code == 404


def binary(client: TestClient, model: str, document: Any, *tensors: bytes, **headers: str) -> Any:
    start = json.dumps(document).encode()
    given = {"Inference-Header-Content-Length": str(len(start)), **headers}
    return client.post(
        f"/v2/models/{model}/infer", content=start + b"".join(tensors), headers=given
    )


def unpack(answer: Any) -> dict[str, Any]:
    """The outputs of a binary answer, BYTES as lists of texts."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    rest, found = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        content, rest = rest[:size], rest[size:]
        if output["datatype"] == "BYTES":
            found[output["name"]] = texts = []
            while content:
                length = int.from_bytes(content[:4], "little")
                texts.append(content[4 : 4 + length].decode())
                content = content[4 + length :]
        else:
            dtype = {"FP64": "<f8", "FP32": "<f4"}[output["datatype"]]
            found[output["name"]] = np.frombuffer(content, dtype).reshape(output["shape"])
    assert rest == b""
    return found


def test_binary_tensors_both_ways(client: TestClient) -> None:
    x = np.array([1.0, 2.0, np.inf])
    tensor = {"name": "x", "shape": [3, 1], "datatype": "FP64"}
    document = {
        "model_name": "curve-mlp",
        "parameters": {"binary_data_output": True, "priority": 0},
        "inputs": [tensor | {"parameters": {"binary_data_size": 24}}],
    }
    found = unpack(binary(client, "curve-mlp", document, x.tobytes()))
    assert found["y"][:2].tolist() == [-1, 4] and np.isinf(found["gradient"][2])
    # One as JSON, another binary; what is binary carries infinities, JSON says where they are.
    outputs_ = [{"name": "gradient2", "parameters": {"binary_data": True}}, {"name": "y"}]
    document |= {"parameters": None, "outputs": outputs_}
    mixed = binary(client, "curve-mlp", document, x.tobytes())
    assert mixed.status_code == 422 and "y[2] is not a finite number" in mixed.json()["error"]
    mixed = binary(client, "curve-mlp", document, np.array([1.0, 2, 3]).tobytes())
    head = json.loads(mixed.content[: int(mixed.headers["inference-header-content-length"])])
    assert [o["name"] for o in head["outputs"]] == ["y", "gradient2"]
    assert head["outputs"][0]["data"] == [-1, 4, 21]
    assert "data" not in head["outputs"][1]


@pytest.mark.parametrize(
    ("size", "length", "text"),
    [
        (24, None, "binary_data_size"),
        (8, None, "its shape and datatype make 16 bytes"),
        (16, "99999", "Inference-Header-Content-Length"),
        (16, "-1", "Inference-Header-Content-Length"),
        (16, "5", "Invalid JSON"),
        (-1, None, "binary_data_size"),
        ("16", None, "it should be an integer"),
    ],
)
def test_binary_sizes_that_lie(client: TestClient, size: Any, length: Any, text: str) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "FP64"}
    document = {"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}
    headers = {"Inference-Header-Content-Length": length} if length else {}
    answer = binary(client, "curve-mlp", document, np.ones(2).tobytes(), **headers)
    assert answer.status_code in {400, 422} and text in answer.json()["error"], answer.text


def test_pictures_as_bytes_and_their_classes(client: TestClient) -> None:
    files = [png((250, 0, 0)), png((0, 0, 250))]
    content = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES"}
    wanted = {"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}}
    document = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(content)}}],
        "outputs": [wanted],
    }
    found = unpack(binary(client, "cifar-improved", document, content))
    assert [text.split(":")[1:] for text in found["probabilities"][::2]] == [
        ["0", "red"],
        ["2", "blue"],
    ]
    data = [base64.b64encode(file).decode() for file in files]
    wanted["parameters"] = {"classification": 1}
    document = {"inputs": [tensor | {"data": data}], "outputs": [wanted]}
    (output,) = infer(client, "cifar-improved", document)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
    assert output["data"][1].endswith(":2:blue")
    for bad in (["é"], [5], ["aGk="], [], data[:1]):
        document["inputs"] = [tensor | {"data": bad}]
        answer = client.post("/v2/models/cifar-improved/infer", json=document)
        assert 400 <= answer.status_code < 500 and answer.json()["error"], bad
    broken = binary(
        client,
        "cifar-improved",
        {"inputs": [tensor | {"parameters": {"binary_data_size": 9}}]},
        b"\xff\xff\xff\x7fabcde",
    )
    assert broken.status_code == 422
    content = content[: 4 + len(files[0])] + b"\3\0\0\0abc"
    document["inputs"] = [tensor | {"parameters": {"binary_data_size": len(content)}}]
    second = binary(client, "cifar-improved", document, content)
    assert second.status_code == 415
    assert second.json()["error"].startswith("inputs.0.data.1: The file is not an image")
    curve = {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    infer(client, "curve-mlp", curve, 422)


@pytest.mark.parametrize(
    ("shape", "content", "text"),
    [
        ([1], bytes(8) + b"\xff" * 4, "as many elements as shape says"),
        ([1_000_000], b"\xff" * 4, "at most 64 images"),
    ],
)
def test_pictures_are_counted_before_they_are_looked_at(
    client: TestClient, shape: list[int], content: bytes, text: str
) -> None:
    """Four million empty ones, which fit into a body, would hold the event loop for seconds."""
    size = {"binary_data_size": len(content)}
    tensor = {"name": "image", "shape": shape, "datatype": "BYTES", "parameters": size}
    answer = binary(client, "cifar-improved", {"inputs": [tensor]}, content)
    assert answer.status_code == 422 and text in answer.json()["error"]
    assert answer.json()["errors"][0]["pointer"] == "#/inputs/0/shape"


def test_compressed_bodies_are_read_within_their_limit(
    client: TestClient, artifacts: Path, serve: Any
) -> None:
    plain = json.dumps({"inputs": [X]}).encode()
    raw = zlib.compressobj(wbits=-15)
    for name, packed in {
        "gzip": gzip.compress(plain),
        "x-gzip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "Deflate": raw.compress(plain) + raw.flush(),
    }.items():
        path, headers = "/v2/models/curve-mlp/infer", {"Content-Encoding": name}
        answer = client.post(path, content=packed, headers=headers)
        assert outputs(answer.json())["y"].tolist() == [-1, 4]
        for broken in (packed[:-5], packed + b"x", b"x" + packed):
            refused = client.post(path, content=broken, headers=headers)
            assert refused.status_code == 400 and refused.json()["error"]
    small = serve(artifacts, max_json_bytes=10_000)
    long = binary(small, "curve-mlp", {"inputs": [X], "pad": " " * 10_000})
    assert long.status_code == 413 and "10000 bytes" in long.json()["error"]
    bomb = gzip.compress(b" " * 1_000_000 + plain)
    headers = {"Content-Encoding": "gzip"}
    assert small.post(path, content=bomb, headers=headers).status_code == 413
    headers = {"Content-Encoding": "br"}
    assert small.post(path, content=bomb, headers=headers).status_code == 415


def test_a_body_is_unpacked_beside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be 16 MB of empty blocks: they take seconds, and give nothing."""
    threads: list[str] = []
    made = zlib.decompressobj

    def noted(*arguments: int) -> Any:
        threads.append(threading.current_thread().name)
        return made(*arguments)

    monkeypatch.setattr("service.web.unpacking.zlib.decompressobj", noted)
    packed = padded_zlib(json.dumps({"inputs": [X]}).encode(), 200_000)
    headers = {"Content-Encoding": "deflate"}
    answer = client.post("/v2/models/curve-mlp/infer", content=packed, headers=headers)
    assert outputs(answer.json())["y"].tolist() == [-1, 4]
    assert [name.startswith("unpacking") for name in threads] == [True]


def test_what_takes_milliseconds_is_worked_out_beside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred at once would hold everybody up for half a second."""
    threads: set[str] = set()

    def noted(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            threads.add(threading.current_thread().name)
            return function(*arguments)

        return run

    monkeypatch.setattr(v2, "model_figures", noted(v2.model_figures))
    monkeypatch.setattr(tesseract, "describe", noted(tesseract.describe))
    for path in ("/v2/models/stats", "/v2/models/curve-mlp/stats"):
        assert client.get(path).json()["model_stats"]
    assert client.get("/tesseract/curve-mlp/openapi.json").json()["paths"]
    assert threads and all(name.startswith("AnyIO") for name in threads)


def test_fields_that_are_given_twice_are_not_read_once(client: TestClient) -> None:
    """The last, the first or a list of both: who reads one of them may read another's body."""
    packed = gzip.compress(json.dumps({"inputs": [X]}).encode())
    for name, value, status, said in (
        ("Content-Encoding", "gzip", 415, "no other is read here"),
        ("Inference-Header-Content-Length", "5", 400, "is given twice"),
    ):
        headers = [(name, value)] * 2
        answer = client.post("/v2/models/curve-mlp/infer", content=packed, headers=headers)
        assert answer.status_code == status and said in answer.json()["error"]


def test_repository_config_and_statistics(client: TestClient) -> None:
    found = client.post("/v2/repository/index").json()
    assert {"name": "curve-mlp", "version": "1", "state": "READY", "reason": ""} in found
    assert client.post("/v2/repository/index", json={"ready": True}).json() == found
    assert client.post("/v2/repository/index", json={"ready": None}).json() == found
    for action in ("load", "unload"):
        answer = client.post(f"/v2/repository/models/curve-mlp/{action}", json={})
        assert answer.status_code == 405 and "No request loads" in answer.json()["error"]
    config = client.get("/v2/models/curve-mlp/config").json()
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP64", "dims": [-1]}]

    def stats() -> tuple[int, int, int]:
        (of,) = client.get("/v2/models/curve-mlp/versions/1/stats").json()["model_stats"]
        success = of["inference_stats"]["success"]
        return of["inference_count"], success["count"], success["ns"]

    before = stats()
    infer(client, "curve-mlp", {"inputs": [X], "outputs": None, "unknown": 1})
    after = stats()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1) and after[2] > before[2]
    assert len(client.get("/v2/models/stats").json()["model_stats"]) == 3


def test_statistics_have_the_parts_that_perf_analyzer_needs(client: TestClient) -> None:
    """It ends with an error unless all are there, and all that a request goes through count it."""

    def stats() -> dict[str, dict[str, int]]:
        (of,) = client.get("/v2/models/curve-mlp/stats").json()["model_stats"]
        return of["inference_stats"]

    before = stats()
    infer(client, "curve-mlp", {"inputs": [X]})
    grown = {
        part: {key: after[key] - before[part][key] for key in after}
        for part, after in stats().items()
    }
    success = grown.pop("success")
    for name in ("fail", "cache_hit", "cache_miss"):
        assert grown.pop(name) == {"count": 0, "ns": 0}
    assert grown.keys() == {"queue", "compute_input", "compute_infer", "compute_output"}
    assert {part["count"] for part in grown.values()} == {success["count"]} == {1}
    for part in ("compute_input", "compute_infer", "compute_output"):
        assert grown[part]["ns"] > 0, part
    assert sum(part["ns"] for part in grown.values()) <= success["ns"]


def test_refused_inferences_and_their_time_are_counted(client: TestClient) -> None:
    def failed() -> dict[str, int]:
        (of,) = client.get("/v2/models/curve-mlp/stats").json()["model_stats"]
        return of["inference_stats"]["fail"]

    before = failed()
    infer(client, "curve-mlp", {"inputs": [X | {"datatype": "FP16"}]}, 422)
    after = failed()
    assert after["count"] == before["count"] + 1
    assert after["ns"] > before["ns"]


def test_a_model_whose_versions_are_all_refused_is_not_ready(tmp_path: Path, serve: Any) -> None:
    """503 with the reason, which names the file as it lies in the artifacts folder."""
    root = tmp_path / "artifacts"
    publish_all(root)
    (root / "curve-mlp").rename(root / "mine")
    client = serve(root)
    answer = client.get("/v2/models/mine")
    assert answer.status_code == 503
    index = client.post("/v2/repository/index").json()
    (entry,) = [entry for entry in index if entry["name"] == "mine"]
    assert entry["state"] == "UNAVAILABLE"
    for said in (answer.json()["detail"], entry["reason"]):
        assert "mine/1/" in said and str(root) not in said


def test_a_single_number_has_no_sizes(tmp_path: Path, serve: Any) -> None:
    """An input without a batch may be one: a time step, a viscosity."""
    publish_scaled(tmp_path)
    client = serve(tmp_path)
    number = {"name": "t", "shape": [], "datatype": "FP64"}
    found = outputs(infer(client, "scaled", {"inputs": [X, {**number, "data": [2.5]}]}))
    assert (found["y"].tolist(), found["square"].tolist()) == ([2.5, 5.0], 6.25)
    size = {"parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [X, {**number, **size}]}).encode()
    answer = client.post(
        "/v2/models/scaled/infer",
        content=head + np.float64(2.5).tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert outputs(answer.json())["y"].tolist() == [2.5, 5.0]


def test_an_output_that_is_named_twice_is_given_once(client: TestClient) -> None:
    """As Triton gives it, which keeps their names in a set."""
    twice = infer(client, "curve-mlp", {"inputs": [X], "outputs": [{"name": "y"}] * 2})
    assert [output["name"] for output in twice["outputs"]] == ["y"]


def test_shared_memory_is_refused_in_words(client: TestClient) -> None:
    """An output that is asked for there and comes here leaves the client reading what was there."""
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    tensor = {"name": "x", "shape": [2], "datatype": "FP64", "parameters": region}
    given = infer(client, "curve-mlp", {"inputs": [tensor]}, 422)
    wanted = [{"name": "y"}, {"name": "gradient", "parameters": region}]
    asked = infer(client, "curve-mlp", {"inputs": [X], "outputs": wanted}, 422)
    for answer, place in ((given, "inputs/0"), (asked, "outputs/1")):
        assert answer["errors"][0]["pointer"] == f"#/{place}/parameters/shared_memory_region"
        assert "shared memory is neither read nor written here" in answer["error"]


@pytest.mark.parametrize(
    ("shape", "data", "said"),
    [
        ([], [1.0], "x: its shape should be [n], not []"),
        ([0], [], "x: its shape should be [n], and none of it 0"),
        ([0, 2], [], "x: its shape should be [n], not [0, 2]"),
    ],
)
def test_a_scalar_and_an_empty_tensor_are_answered_with_the_models_shape(
    client: TestClient, shape: list[int], data: list[float], said: str
) -> None:
    tensor = {"name": "x", "shape": shape, "datatype": "FP64"}
    as_json = infer(client, "curve-mlp", {"inputs": [tensor | {"data": data}]}, 422)
    size = {"parameters": {"binary_data_size": 8 * len(data)}}
    content = np.array(data).tobytes()
    as_binary = binary(client, "curve-mlp", {"inputs": [tensor | size]}, content)
    assert as_binary.status_code == 422
    for answer in (as_json, as_binary.json()):
        assert answer["error"] == f"inputs.0: {said}"


def test_no_picture_is_said(client: TestClient) -> None:
    tensor = {"name": "image", "shape": [0], "datatype": "BYTES", "data": []}
    answer = infer(client, "cifar-improved", {"inputs": [tensor]}, 422)
    assert answer["error"] == "inputs.0.shape: there should be a picture at least"


def test_errors_say_what_was_given_in_no_other_protocols_words(client: TestClient) -> None:
    row = infer(client, "curve-mlp", {"inputs": [X | {"shape": [1, 2]}]}, 422)
    assert row["error"] == "inputs.0: x: its shape should be [n], not [1, 2]"
    pixels = {"name": "image", "datatype": "UINT8", "data": [0] * 3072}
    first = pixels | {"shape": [1, 3, 32, 32]}
    found = infer(client, "cifar-improved", {"inputs": [first]}, 422)
    assert found["error"].endswith("should be [n, 32, 32, 3], not [1, 3, 32, 32]")
    two = {"name": "class", "shape": [2], "datatype": "INT64", "data": [0, 1]}
    one = pixels | {"shape": [1, 32, 32, 3]}
    found = infer(client, "cifar-improved", {"inputs": [one, two]}, 422)
    assert found["error"].endswith("with n = 1 as in the inputs before it, not [2]")
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [NaN]}]}'
    nan = client.post("/v2/models/curve-mlp/infer", content=body).json()
    assert "a finite number that a float of 64 bits can hold" in nan["error"]


def test_every_error_says_what_and_where(client: TestClient) -> None:
    half = infer(client, "curve-mlp", {"inputs": [X | {"datatype": "FP16"}]}, 422)
    assert "inputs.0.datatype: FP16 is not taken here" in half["error"]
    assert "should be FP64" in half["error"]
    assert "an object" in infer(client, "curve-mlp", [], 422)["error"]
    two = infer(client, "curve-mlp", {"inputs": [{"name": 5}], "outputs": [{}]}, 422)
    assert "inputs.0.name" in two["error"] and "outputs.0.name" in two["error"]
    words = infer(client, "curve-mlp", {"inputs": [X | {"data": [0, "é"]}]}, 422)
    assert words["errors"][0]["pointer"] == "#/inputs/0/data/1"
    ready = client.post("/v2/repository/index", json={"ready": 0})  # JSON has true and false
    assert ready.status_code == 422 and ready.json()["errors"][0]["pointer"] == "#/ready"
    for method, path, status in (
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/curve-mlp/infer", 405),
        ("GET", "/v2/models/nope", 404),
        ("GET", f"/v2/models/{'x' * 99}/ready", 422),
        ("POST", "/v2/repository/index", 400),
    ):
        answer = client.request(method, path, content=b"{" if method == "POST" else None)
        assert answer.status_code == status and answer.json()["error"], path
    assert "error" not in client.get("/nothing").json()
