"""NVIDIA's tritonclient[http] against a running service: python with_tritonclient.py URL PICTURE"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, picture = sys.argv[1].removeprefix("http://"), sys.argv[2]
client = triton.InferenceServerClient(url)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("curve-mlp") and client.is_model_ready("curve-mlp", "1")
assert not client.is_model_ready("nope")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
assert client.get_model_metadata("curve-mlp")["inputs"][0]["datatype"] == "FP64"
assert client.get_model_config("curve-mlp")["input"][0]["data_type"] == "TYPE_FP64"
assert any(entry["name"] == "curve-mlp" for entry in client.get_model_repository_index())


def tensor(name: str, array: np.ndarray, datatype: str, binary: bool) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


x = np.array([1.0, 2.0, 3.0])
for binary in (True, False):
    for packing in (None, "gzip", "deflate"):
        found = client.infer(
            "curve-mlp",
            [tensor("x", x, "FP64", binary)],
            outputs=[
                triton.InferRequestedOutput("y", binary_data=binary),
                triton.InferRequestedOutput("gradient", binary_data=not binary),
            ],
            request_id="7 a",
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert found.get_response()["id"] == "7 a"
        assert found.as_numpy("y").tolist() == [-1, 4, 21]
        assert found.as_numpy("gradient").tolist() == [1, 10, 25]
# No outputs named: all of them, binary.
found = client.infer("curve-mlp", [tensor("x", x, "FP64", True)])
assert found.as_numpy("gradient3").tolist() == [6, 6, 6]
later = [client.async_infer("curve-mlp", [tensor("x", x + i, "FP64", True)]) for i in range(8)]
for i, request in enumerate(later):
    expected = (x + i) ** 3 - 2 * (x + i)
    assert np.allclose(request.get_result().as_numpy("y"), expected, rtol=1e-12)

element = np.array([Path(picture).read_bytes()], dtype=object)
found = client.infer(
    "cifar-improved",
    [tensor("image", element, "BYTES", True)],
    outputs=[triton.InferRequestedOutput("probabilities", class_count=2)],
)
(likeliest, _) = found.as_numpy("probabilities")[0]
assert likeliest.decode().endswith(":2:blue"), likeliest

statistics = client.get_inference_statistics("curve-mlp")["model_stats"][0]
assert statistics["inference_stats"]["success"]["count"] >= 15, statistics
for call, words in (
    (lambda: client.infer("curve-mlp", [tensor("x", x.astype("f4"), "FP32", True)]), "FP64"),
    (lambda: client.infer("curve-mlp", [tensor("z", x, "FP64", True)]), "no such input"),
    (lambda: client.infer("nope", [tensor("x", x, "FP64", True)]), "no model of that name"),
    (lambda: client.load_model("curve-mlp"), "No request loads"),
    (client.get_trace_settings, "nothing at this address"),
):
    try:
        call()
    except InferenceServerException as error:
        assert words in error.message(), error
    else:
        raise AssertionError(words)
print("tritonclient: every call")
