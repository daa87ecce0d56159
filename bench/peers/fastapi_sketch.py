"""The least code that is fast: FastAPI, everything inline on the event loop, ONNX Runtime, and JPEG
draft decoding. It has no limits, checks no artifact, and one photo holds up all its neighbours: no
documentation shows it, so it is no peer, but it shows what could be had without all that.

Run: uvicorn --workers 2 bench.peers.fastapi_sketch:app
"""

import io

from fastapi import FastAPI, UploadFile
from PIL import Image

from bench.peers.model import answer, load_classifier, to_pixels

app = FastAPI()
classify_images = load_classifier("onnx")


@app.post("/classify")
async def classify(file: UploadFile):
    image = Image.open(io.BytesIO(await file.read()))
    image.draft("RGB", (64, 64))
    return answer(classify_images(to_pixels(image)[None])[0])
