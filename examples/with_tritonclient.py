"""Three derivatives by the Open Inference Protocol, in binary, with NVIDIA's client."""

import sys

import numpy as np
import tritonclient.http as triton

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = triton.InferenceServerClient(address.removeprefix("http://"))
x = triton.InferInput("x", [3], "FP64")
x.set_data_from_numpy(np.array([3.0, 0.1, -0.5]))
answer = client.infer("curve-mlp", [x], outputs=[triton.InferRequestedOutput("gradient")])
print(answer.as_numpy("gradient"))
