"""f′ with plain FastAPI, as its tutorial shows a JSON body; from the graph or by eager autograd.

Run: uvicorn --workers 2 bench.peers.fastapi_gradient:app
https://fastapi.tiangolo.com/tutorial/body/
"""

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers.model import load_derivative

app = FastAPI()
derivative = load_derivative()


class Points(BaseModel):
    x: list[float]


class Gradient(BaseModel):
    x: list[float]
    gradient: list[float]


@app.post("/gradient")
async def gradient(points: Points) -> Gradient:
    return Gradient(x=points.x, gradient=derivative(np.array(points.x)).tolist())
