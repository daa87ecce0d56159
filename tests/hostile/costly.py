"""Requests that are legal, or nearly so, and cost as much as one can: of JSON and of pictures."""

import asyncio
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

from tests.hostile.load import Connection
from tests.hostile.pictures import COLOUR_ALPHA, chunk, padded_zlib, png_of_stream
from tests.hostile.wire import post
from tests.tiny_artifacts import encoded, png

ATTACKERS = 24
INFER = "/v2/models/{}/infer"


def tensors(model: str, *inputs: tuple[str, str, list[int], bytes]) -> bytes:
    """An inference by JSON: name, datatype, shape, and the text of the data."""
    texts = (
        b'{"name":"%s","shape":%s,"datatype":"%s","data":[%s]}'
        % (name.encode(), str(shape).encode(), datatype.encode(), data)
        for name, datatype, shape, data in inputs
    )
    return post(INFER.format(model), b'{"inputs":[' + b",".join(texts) + b"]}")


def repeated(unit: bytes, count: int) -> bytes:
    """``unit`` so many times, with commas between."""
    return (unit + b",") * (count - 1) + unit


def sigmoid_conv(rows: int) -> bytes:
    """So many rows for the model with 30 numbers a row."""
    shapes = {"x": [4, 4], "kernel": [3, 3], "weights": [4], "label": []}
    return tensors(
        "sigmoid-conv",
        *(
            (name, "FP64", [rows, *shape], repeated(b"1", rows * int(np.prod(shape))))
            for name, shape in shapes.items()
        ),
    )


@cache
def documents() -> dict[str, tuple[bytes, set[int]]]:
    """JSON that takes long to parse or to work on, and the statuses that are right."""
    busy = {429}
    return {
        "a million arrays": (
            tensors("curve-mlp", ("x", "FP64", [1_000_000], repeated(b"[1]", 1_000_000))),
            {413} | busy,
        ),
        "two million x": (
            post("/predict", b'{"x":[%s]}' % repeated(b"1", 2_000_000)),
            {413} | busy,
        ),
        "60,000 rows": (sigmoid_conv(60_000), {413} | busy),
        "a million names": (
            post("/predict", b'{"x":1%s}' % b"".join(b',"%d":1' % i for i in range(300_000))),
            {413} | busy,
        ),
        # Just within the limits.
        "10,000 rows": (sigmoid_conv(10_000), {200} | busy),
        "100,000 x": (post("/gradient", b'{"x":[%s]}' % repeated(b"1.25", 100_000)), {200} | busy),
        "90,000 arrays": (
            tensors("curve-mlp", ("x", "FP64", [90_000, 1], repeated(b"[1]", 90_000))),
            {200} | busy,
        ),
        "9,000 names": (
            post("/predict", b'{"x":1%s}' % b"".join(b',"%d":1' % i for i in range(9_000))),
            {422} | busy,
        ),
    }


def flat_png(width: int, height: int, depth: int, colour: int, pixel: bytes) -> bytes:
    """A PNG of one colour, without its rows ever being in memory at once."""
    packer = zlib.compressobj(1)
    row = b"\0" + pixel * width
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def flat(side: tuple[int, int], mode: str, kind: str, **options: object) -> bytes:
    """A picture of one colour in any format."""
    return encoded(Image.new(mode, side, 0), kind, **options)


@cache
def pictures() -> dict[str, tuple[bytes, set[int]]]:
    """Small files that are large when decoded, and the statuses that are right."""
    busy = {429}
    lossless = {"lossless": True, "method": 0, "quality": 0}
    return {
        "PNG, 50 Mpx, 16 bits": (
            flat_png(10_000, 5_000, 16, COLOUR_ALPHA, bytes(6) + b"\xff\xff"),
            {200} | busy,
        ),
        "WebP, 50 Mpx": (flat((7071, 7071), "RGB", "WEBP", **lossless), {413} | busy),
        "WebP, 15 Mpx": (flat((3900, 3900), "RGB", "WEBP", **lossless), {200} | busy),
        "GIF, 49 Mpx": (flat((7000, 7000), "P", "GIF"), {200} | busy),
        "JPEG, progressive CMYK, 34 Mpx": (
            flat((7000, 4860), "CMYK", "JPEG", progressive=True, subsampling=0),
            {200} | busy,
        ),
        "JPEG of empty blocks": (blocks(4_000_000), {413} | busy),
        "PNG of empty blocks": (
            png_of_stream((1, 1), padded_zlib(bytes(4), 4_000_000)),
            {200} | busy,
        ),
    }


def blocks(count: int) -> bytes:
    """A JPEG that begins with so many empty segments."""
    small = encoded(Image.new("RGB", (32, 32)), "JPEG")
    return small[:2] + b"\xff\xe1\0\2" * count + small[2:]


def photo() -> bytes:
    """A JPEG such as a page shows: 1200 × 800."""
    noise = Image.effect_noise((150, 100), 60).resize((1200, 800)).convert("RGB")
    return encoded(noise, "JPEG")


@cache
def innocent() -> dict[str, bytes]:
    """What others ask meanwhile."""
    thumbnail = png((5, 250, 5))
    return {
        "/predict": post("/predict", b'{"x": [0.1, 3.0]}'),
        "/classify": post("/classify", thumbnail, "image/png"),
        "/explain": post("/explain", thumbnail, "image/png"),
        "a photo": post("/classify", photo(), "image/jpeg"),
        "/health/live": b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        "/metrics": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    }


def uploads() -> Iterator[tuple[str, bytes, set[int]]]:
    """The largest bodies, whatever is in them."""
    noise = np.random.default_rng(0).integers(0, 256, 16_000_000, np.uint8).tobytes()
    yield "16 MB that are no picture", post("/classify", noise, "image/png"), {415, 429}
    lines = ("Content-Encoding: deflate", "Inference-Header-Content-Length: 2")
    packed = padded_zlib(b"{}", 4_000_000)
    sent = post(INFER.format("curve-mlp"), packed, "application/octet-stream", *lines)
    yield "4 MB of empty blocks", sent, {422, 429}


@cache
def as_requests() -> dict[str, tuple[bytes, set[int]]]:
    """All of them as requests: name, bytes to send, right statuses."""
    found = dict(documents())
    for name, (content, statuses) in pictures().items():
        found[name] = (post("/classify", content, "image/png"), statuses)
    for name, sent, statuses in uploads():
        found[name] = (sent, statuses)
    # A form of pictures that are allowed one by one, and take minutes together.
    large = pictures()["WebP, 15 Mpx"][0]
    part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + large + b"\r\n"
    form = post("/classify", part * 60 + b"--b--", "multipart/form-data; boundary=b")
    found["a form of 60 WebPs"] = (form, {413, 429})
    return found


def right_statuses() -> dict[str, set[int]]:
    """How each may be answered."""
    return {name: statuses for name, (_, statuses) in as_requests().items()}


def attack(port: int, seconds: float) -> dict[str, Counter[int]]:
    """Ask for what costs most, by ``ATTACKERS`` connections; how each request was answered."""
    requests = [(name, sent) for name, (sent, _) in as_requests().items()]
    # Sending 16 MB takes the time of many others, and this shares the cores with the server.
    weights = [1e6 / (len(sent) + 1e6) for _, sent in requests]
    seen: dict[str, Counter[int]] = {name: Counter() for name, _ in requests}

    async def one(chance: random.Random, first: int, end: float) -> None:
        name, sent = requests[first % len(requests)]
        while time.perf_counter() < end:
            connection = await Connection.open(port)
            try:
                status, _ = await asyncio.wait_for(connection.ask(sent), 60)
            except EOFError:
                status = 0
            connection.close()
            seen[name][status] += 1
            ((name, sent),) = chance.choices(requests, weights)

    async def all_of_them() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(one(random.Random(i), i, end) for i in range(ATTACKERS)))

    asyncio.run(all_of_them())
    return seen
