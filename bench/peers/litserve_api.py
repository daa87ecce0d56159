"""LitServe as its documentation shows an image classifier; batched if BENCH_BATCH is above 1.

``fast_queue`` is what it recommends above 100 requests a second.

Run: python -m bench.peers.litserve_api
https://lightning.ai/docs/litserve/features/batching
"""

import os

import litserve as ls
import numpy as np

from bench.peers.model import PORT, WORKERS, answer, load_classifier, read_image

BATCH = int(os.environ.get("BENCH_BATCH", "1"))


class Classifier(ls.LitAPI):
    def setup(self, device):  # noqa: ARG002 — LitServe's own signature
        self.classify_images = load_classifier()

    def decode_request(self, request):
        return read_image(request["file"].file.read())

    def predict(self, x):
        return self.classify_images(x) if BATCH > 1 else self.classify_images(x[None])[0]

    def batch(self, inputs):
        return np.stack(inputs)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return answer(output)


if __name__ == "__main__":
    api = Classifier(
        api_path="/classify", max_batch_size=BATCH, batch_timeout=0.005 if BATCH > 1 else 0
    )
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
