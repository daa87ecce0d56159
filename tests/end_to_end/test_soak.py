"""Hours of mixed requests, a tenth of them hostile: memory, descriptors and threads stay.

Runs when GRADSERVE_SOAK_SECONDS says for how long. The same measurement has to find a leak that is
planted on purpose, or its silence would mean nothing.
"""

import http.client
import json
import os
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from service.api.w10 import EXAMPLE as W10
from tests.server_process import ServerProcess
from tests.tiny_artifacts import png, publish_all

SECONDS = float(os.environ.get("GRADSERVE_SOAK_SECONDS", "0"))
CLIENTS = 4
SAMPLE_SECONDS = 0.25
FLAT_KIB = 6 * 1024  # what the second half may differ by from its own beginning

pytestmark = pytest.mark.skipif(SECONDS <= 0, reason="set GRADSERVE_SOAK_SECONDS to soak")


class LeakyProcess(ServerProcess):
    """The server, with 10 kB kept for every request."""

    program = (
        "-c",
        "import sys, service.logs as logs\n"
        "kept, request_id = [], logs._request_id\n"
        "logs._request_id = lambda scope: (kept.append(b'x' * 10_000 + b'%d' % len(kept)),"
        " request_id(scope))[1]\n"
        "from service.__main__ import main\n"
        "sys.exit(main())\n",
    )


def photo() -> bytes:
    stream = BytesIO()
    Image.effect_noise((1200, 900), 50).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


PHOTO, PICTURE = photo(), png((200, 10, 10), (64, 48))


def post(server: ServerProcess, path: str, body: bytes, kind: str = "application/json") -> int:
    return server.request("POST", path, body, {"Content-Type": kind})[0]


def vanish(server: ServerProcess) -> int:
    """Leave in the middle of an upload."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(PHOTO))
        client.sendall(PHOTO[: random.randrange(len(PHOTO))])
    return 0


GOOD: list[Callable[[ServerProcess], int]] = [
    lambda s: post(s, "/predict", b'{"x": [1, 2, 3]}'),
    lambda s: post(s, "/gradient", json.dumps({"x": [0.5] * 5000, "order": 2}).encode()),
    lambda s: post(s, "/w10-gradient", json.dumps(W10).encode()),
    lambda s: post(s, "/classify", PICTURE, "image/png"),
    lambda s: post(s, "/classify", PHOTO, "image/jpeg"),
    lambda s: post(s, "/explain", PICTURE, "image/png"),
    lambda s: s.request("GET", "/models/curve-mlp/report")[0],
    lambda s: s.request("GET", "/metrics")[0],
    lambda s: s.request("GET", "/health/ready")[0],
]
HOSTILE: list[Callable[[ServerProcess], int]] = [
    lambda s: post(s, "/predict", b"[" * 50_000),
    lambda s: post(s, "/predict", b'{"x": NaN}'),
    lambda s: post(s, "/classify", PICTURE[:50], "image/png"),
    lambda s: post(s, "/classify", PHOTO[: len(PHOTO) // 2], "image/jpeg"),
    lambda s: post(s, "/classify", b"--b\r\n" * 10_000, "multipart/form-data; boundary=b"),
    lambda s: s.request("GET", "/models/" + "x" * random.randrange(1, 3000))[0],
    vanish,
]


def soak(server: ServerProcess, seconds: float) -> tuple[float, Counter[int]]:
    """Growth of memory over the second half, KiB, and how often each status came."""
    going = threading.Event()
    going.set()
    statuses: Counter[int] = Counter()

    def client() -> None:
        while going.is_set():
            action = random.choice(HOSTILE if random.random() < 0.1 else GOOD)
            try:
                statuses[action(server)] += 1
            except (OSError, http.client.HTTPException) as error:
                statuses[599] += 1
                print(repr(error))

    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    memory: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(SAMPLE_SECONDS)
        memory.append(sum(in_use(pid)[0] for pid in server.workers()))
    going.clear()
    for thread in threads:
        thread.join(30)
    half = memory[len(memory) // 2 :]
    quarter = max(1, len(half) // 2)
    return statistics.median(half[quarter:]) - statistics.median(half[:quarter]), statuses


def in_use(pid: int) -> tuple[int, int, int]:
    """Memory in KiB, descriptors and threads of a process."""
    process = Path(f"/proc/{pid}")
    status = process.joinpath("status").read_text()
    resident = int(status.partition("RssAnon:")[2].split()[0])
    descriptors = len(list(process.joinpath("fd").iterdir()))
    return resident, descriptors, len(list(process.joinpath("task").iterdir()))


def test_nothing_grows(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    publish_all(root)
    with ServerProcess(root, workers=2, access_log=0).wait_ready() as server:
        soak(server, min(5.0, SECONDS / 4))  # first use makes threads, and fills caches
        before = {pid: in_use(pid) for pid in server.workers()}
        growth, statuses = soak(server, SECONDS)
        assert set(before) == set(server.workers()), "a worker was replaced"
        assert max(statuses) < 500, statuses
        assert statuses[200] > statuses.total() / 2

        def settled() -> bool:
            now = {pid: in_use(pid) for pid in before}
            # Idle threads of a pool are kept; there are no more of them than there were clients.
            return all(
                now[pid][1] <= before[pid][1] and now[pid][2] <= before[pid][2] + CLIENTS
                for pid in before
            )

        server.wait_until(settled, "descriptors and threads are back", 20)
        assert growth < FLAT_KIB, f"{growth} KiB more in {SECONDS} s"


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    publish_all(root)
    with LeakyProcess(root, workers=1, access_log=0).wait_ready() as server:
        growth, statuses = soak(server, max(15.0, min(SECONDS, 60.0)))
        assert growth > FLAT_KIB, f"{growth} KiB in {statuses.total()} requests"
