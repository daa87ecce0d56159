"""BentoML as its documentation shows an image service, with two workers.

Run: bentoml serve bench.peers.bentoml_service:Classifier
https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html
"""

from typing import Any

import bentoml
from PIL.Image import Image

from bench.peers.model import WORKERS, answer, load_classifier, to_pixels


# No line of log for each request: no server here writes one.
@bentoml.service(workers=WORKERS, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        self.classify_images = load_classifier()

    @bentoml.api(route="/classify")
    def classify(self, file: Image) -> dict[str, Any]:
        return answer(self.classify_images(to_pixels(file)[None])[0])
