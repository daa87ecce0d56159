"""f′ at three places, and what is in a picture, with httpx."""

import sys
from pathlib import Path

import httpx

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
with httpx.Client(base_url=address) as client:
    answer = client.post("/gradient", json={"x": [3.0, 0.1, -0.5]}).raise_for_status()
    print(answer.json()["gradient"])

    picture = (Path(__file__).parent / "cat.jpg").read_bytes()
    answer = client.post("/classify", files={"file": picture}, params={"top_k": 1})
    print(answer.raise_for_status().json()["results"][0]["top"][0]["label"])
