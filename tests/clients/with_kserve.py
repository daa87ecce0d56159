"""KServe's InferenceRESTClient against a running service: python with_kserve.py URL"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "curve-mlp")
    x = np.array([1.0, 2.0, 3.0])
    for binary in (True, False):
        given = InferInput("x", [3], "FP64")
        given.set_data_from_numpy(x, binary_data=binary)
        wanted = RequestedOutput("gradient", {"binary_data": binary})
        request = InferRequest("curve-mlp", [given], request_outputs=[wanted])
        found = await client.infer(url, request, model_name="curve-mlp")
        (output,) = found.outputs
        assert output.as_numpy().tolist() == [1, 10, 25], output
    given = InferInput("x", [3], "FP32")
    given.set_data_from_numpy(x.astype("f4"), binary_data=True)
    try:
        await client.infer(url, InferRequest("curve-mlp", [given]), model_name="curve-mlp")
    except httpx.HTTPStatusError as error:
        assert "FP64" in error.response.json()["error"]
    else:
        raise AssertionError("FP32")
    print("kserve: every call")


asyncio.run(main(sys.argv[1]))
