"""The floor under any server built on FastAPI: reads the upload, answers a constant.

Run: uvicorn --workers 2 bench.peers.fastapi_floor:app
"""

from fastapi import FastAPI, UploadFile

app = FastAPI()


@app.post("/classify")
async def classify(file: UploadFile):
    await file.read()
    return {"index": 0, "probability": 1.0}
