"""Plain FastAPI as its tutorial shows a file upload: UploadFile and a def endpoint.

As shown: uvicorn bench.peers.fastapi_app:app, and the network in eager PyTorch.
Tuned: uvicorn --workers 2 bench.peers.fastapi_app:app, and the exported graph.
https://fastapi.tiangolo.com/tutorial/request-files/
https://fastapi.tiangolo.com/deployment/server-workers/
"""

from fastapi import FastAPI, UploadFile

from bench.peers.model import answer, load_classifier, read_image

app = FastAPI()
classify_images = load_classifier()


@app.post("/classify")
def classify(file: UploadFile):
    image = read_image(file.file.read())
    return answer(classify_images(image[None])[0])
