"""A client that openapi-python-client generates from our document: with_generated.py URL PICTURE"""

import subprocess
import sys
import tempfile
from pathlib import Path

url, picture = sys.argv[1], Path(sys.argv[2])
folder = tempfile.mkdtemp()
generator = Path(sys.executable).with_name("openapi-python-client")
options = ["--url", f"{url}/openapi.json", "--meta", "none"]
subprocess.run(
    [generator, "generate", *options, "--output-path", f"{folder}/made"],
    check=True,
    stdout=subprocess.DEVNULL,
)
sys.path.insert(0, folder)
from made import Client  # noqa: E402
from made.api.curves import post_gradient  # noqa: E402
from made.api.functions import post_evaluate  # noqa: E402
from made.api.images import post_classify  # noqa: E402
from made.api.open_inference_protocol import post_v2_models_model_infer  # noqa: E402
from made.models import (  # noqa: E402
    EvaluateQuery,
    GradientQuery,
    InferQuery,
    PostClassifyFilesBody,
)
from made.types import File  # noqa: E402

client = Client(url)
slopes = post_gradient.sync(client=client, body=GradientQuery(x=[0.5, 2.0]))
assert slopes.model == "curve-mlp" and len(slopes.gradient) == 2, slopes

question = {"model": "curve-mlp", "inputs": {"x": [0.5, 2.0]}, "outputs": ["gradient"]}
found = post_evaluate.sync(client=client, body=EvaluateQuery.from_dict(question))
assert found.outputs["gradient"] == slopes.gradient, found

tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [0.5, 2.0]}
query = InferQuery.from_dict({"inputs": [tensor], "outputs": [{"name": "gradient"}]})
answer = post_v2_models_model_infer.sync("curve-mlp", client=client, body=query)
assert answer.outputs[0].data == slopes.gradient, answer

with picture.open("rb") as stream:
    body = PostClassifyFilesBody(file=[File(stream, picture.name, "image/png")])
    named = post_classify.sync(client=client, body=body, top_k=1)
assert named.results[0].top[0].probability > 0, named
print("a generated Python client works")
