"""MLServer's types and codecs against a running service: python with_mlserver.py URL PICTURE"""

import sys
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, RequestOutput

url = sys.argv[1]


def infer(model: str, request: InferenceRequest) -> InferenceResponse:
    body = request.model_dump_json()  # with its nulls
    path, headers = f"{url}/v2/models/{model}/infer", {"content-type": "application/json"}
    with urlopen(Request(path, body.encode(), headers), timeout=30) as answer:
        return InferenceResponse.model_validate_json(answer.read())


x = np.array([1.0, 2.0, 3.0])
given = NumpyCodec.encode_input("x", x)
assert given.shape == [3, 1]  # a column, as MLServer has it
found = infer("curve-mlp", InferenceRequest(inputs=[given], outputs=[RequestOutput(name="y")]))
assert NumpyCodec.decode_output(found.outputs[0]).tolist() == [-1, 4, 21]
request = NumpyRequestCodec.encode_request(x.reshape(1, 3))
request.inputs[0].name = "x"
request.outputs = [RequestOutput(name="y")]
assert NumpyRequestCodec.decode_response(infer("quadratic", request)).shape == (1, 2)
picture = Path(sys.argv[2]).read_bytes()
given = Base64Codec.encode_input("image", [picture], use_bytes=False)
given.shape = [1]
found = infer("cifar-improved", InferenceRequest(inputs=[given]))
assert NumpyCodec.decode_output(found.outputs[0]).argmax() == 2
with urlopen(f"{url}/v2/models/curve-mlp", timeout=30) as about:
    assert MetadataModelResponse.model_validate_json(about.read()).inputs[0].datatype == "FP64"
print("mlserver: every codec")
