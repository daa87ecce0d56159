"""Ray Serve with a FastAPI ingress and two replicas, as its documentation shows.

With the two switches that its guide to high throughput names, HAProxy in front and direct calls
between its parts, it serves about three times as much as without.

Run, with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1 in the environment:
python -m bench.peers.ray_serve_app
https://docs.ray.io/en/latest/serve/http-guide.html
https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html
"""

import os

import ray
from fastapi import FastAPI, UploadFile
from ray import serve

from bench.peers.model import PORT, WORKERS, answer, load_classifier, read_image

app = FastAPI()


@serve.deployment(num_replicas=WORKERS, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Classifier:
    def __init__(self):
        self.classify_images = load_classifier()

    @app.post("/classify")
    def classify(self, file: UploadFile):
        return answer(self.classify_images(read_image(file.file.read())[None])[0])


if __name__ == "__main__":
    ray.init(num_cpus=WORKERS, include_dashboard=False, _temp_dir=os.environ["BENCH_SCRATCH"])
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Classifier.bind(), blocking=True)
