"""A long run of mixed requests, one in ten hostile, that watches what the workers hold.

``python -m tests.hostile.soak`` runs for SOAK_SECONDS (an hour unless set) over the repository's
artifacts, prints a line a minute, and fails if memory grew over the second half of the time, if a
descriptor or a thread was left over, or if a good request was not answered.
"""

import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

from PIL import Image

from tests.hostile import documents, pictures
from tests.hostile.load import Connection
from tests.hostile.process import descriptors, own_mib, threads
from tests.hostile.wire import post
from tests.server_process import ROOT, ServerProcess
from tests.tiny_artifacts import encoded, png

CLIENTS = 4
HOSTILE_SHARE = 0.1
# Over the second half: a leak of 30 bytes a request shows in an hour, one of 20 KB in seconds.
GROWTH_MIB = 6.0
GROWTH_SHARE = 0.02
# Of each worker: idle ones of pools, which are kept, and of which there are at most as many as
# requests at a time, and two for what is long.
POOLED_THREADS = CLIENTS + 2


@dataclass
class Record:
    """What was seen: statuses of good requests, ends of hostile ones, and samples of memory."""

    good: Counter[int] = field(default_factory=Counter)
    hostile: Counter[int] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)  # MiB of all workers
    left_descriptors: int = 0
    left_threads: int = 0

    def growth(self) -> float:
        """MiB by which the last quarter of the time is above the quarter before it.

        Of each the lowest tenth: what is held between requests. A saliency map takes much while
        it is made, and how many are being made at a sample is chance; a leak raises the floor.
        """
        quarter = len(self.memory) // 4
        return _floor(self.memory[-quarter:]) - _floor(self.memory[-2 * quarter : -quarter])

    def faults(self) -> list[str]:
        """What breaks the promise; none, if it is kept."""
        found = []
        allowed = max(GROWTH_MIB, GROWTH_SHARE * median(self.memory))
        if self.growth() > allowed:
            found.append(f"memory grew by {self.growth():.1f} MiB over the second half")
        if self.left_descriptors > 0:
            found.append(f"{self.left_descriptors} descriptors are left over")
        if self.left_threads > 0:
            found.append(f"{self.left_threads} threads are left over")
        if set(self.good) != {200}:
            found.append(f"good requests were answered {dict(self.good)}")
        if any(status >= 500 for status in self.hostile):
            found.append(f"hostile requests were answered {dict(self.hostile)}")
        return found


def _floor(memory: list[float]) -> float:
    return sorted(memory)[len(memory) // 10]


@cache
def good_requests() -> list[bytes]:
    """What people ask, each answered 200."""
    photo = encoded(Image.effect_noise((600, 450), 60).convert("RGB"), "JPEG")
    return [
        post("/predict", b'{"x": 2}'),
        post("/predict", b'{"x": [' + b"0.5," * 4000 + b"1]}"),
        post("/gradient", b'{"x": [0.5, 1, 1.5], "order": 2}'),
        post("/w10-gradient", documents.w10_changed("label", 0.5)),
        post("/v2/models/curve-mlp/infer", documents.v2_changed()),
        post("/classify", png((250, 5, 5)), "image/png"),
        post("/classify", photo, "image/jpeg"),
        post("/explain", png((5, 250, 5)), "image/png"),
        *(
            f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            for path in ("/health/ready", "/models", "/models/curve-mlp", "/static/docs.js")
        ),
    ]


@cache
def hostile_requests() -> list[bytes]:
    """What breaks other servers; those that are large are left to the tests of their own."""
    bodies = (
        *documents.MALFORMED.values(),
        *documents.MEANINGLESS.values(),
        *documents.V2.values(),
        *(documents.x(text) for text, _ in documents.NUMBERS.values()),
    )
    paths = itertools.cycle(
        ["/predict", "/gradient", "/w10-gradient", "/v2/models/curve-mlp/infer"]
    )
    files = [content for _, content, _ in pictures.refused()]
    sent = [
        *(post(path, body) for path, body in zip(paths, bodies, strict=False)),
        *(post("/classify", content, "image/png") for content in files),
        *(post("/explain", content, "multipart/form-data; boundary=b") for content in files),
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        post("/predict", b"{}", length="-1"),
    ]
    return [request for request in sent if len(request) < 300_000]


async def one_hostile(port: int, request: bytes, share: float) -> int:
    """Send ``share`` of a request, and read the answer if it was sent whole; 0 if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request[: int(len(request) * share)])
        await writer.drain()
        if share < 1:
            return 0
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        return int(head[9:12])
    except (OSError, EOFError, asyncio.LimitOverrunError):
        return 0
    finally:
        writer.close()


async def client(port: int, seed: int, end: float, record: Record) -> None:
    """Ask one thing after another on a connection that is kept, misbehaving now and then."""
    chance = random.Random(seed)
    good, hostile = good_requests(), hostile_requests()
    connection = await Connection.open(port)
    while time.monotonic() < end:
        if chance.random() < HOSTILE_SHARE:
            share = chance.choice((1, 1, 1, 0.99, 0.5))
            record.hostile[await one_hostile(port, chance.choice(hostile), share)] += 1
        else:
            status, head = await connection.ask(chance.choice(good))
            record.good[status] += 1
            if b"\r\nconnection: close" in head:
                connection.close()
                connection = await Connection.open(port)
        await asyncio.sleep(0.001)
    connection.close()


def soak(
    server: ServerProcess, seconds: float, say: Callable[[str], None] = lambda _: None
) -> Record:
    """Run for ``seconds`` after a tenth of it, or ten seconds at most, in which caches fill."""
    workers = server.workers()

    good_requests(), hostile_requests()  # which takes seconds

    def held(count: Callable[[int], float]) -> float:
        return sum(count(worker) for worker in workers)

    async def settle() -> tuple[float, float]:
        # Connections that a client has closed take a moment to be closed here, and a look at the
        # artifacts opens a folder for a moment: what is left over is there at every sample.
        lowest = held(descriptors)
        for _ in range(25):
            await asyncio.sleep(0.2)
            lowest = min(lowest, held(descriptors))
        return lowest, held(threads)

    async def run() -> Record:
        async def load(duration: float, record: Record) -> None:
            end = time.monotonic() + duration
            clients = [
                asyncio.create_task(client(server.port, seed, end, record))
                for seed in range(CLIENTS)
            ]
            minute = time.monotonic() + 60
            while any(not task.done() for task in clients):
                await asyncio.sleep(min(1.0, duration / 50))
                record.memory.append(held(own_mib))
                if time.monotonic() > minute:
                    minute += 60
                    say(f"{sum(record.good.values())} answered, {record.memory[-1]:.1f} MiB")
            await asyncio.gather(*clients)

        await load(min(10.0, max(2.0, seconds / 10)), Record())
        descriptors_before, threads_before = await settle()
        record = Record()
        await load(seconds, record)
        descriptors_after, threads_after = await settle()
        record.left_descriptors = int(descriptors_after - descriptors_before)
        pooled = POOLED_THREADS * len(workers)
        record.left_threads = max(0, int(threads_after - threads_before) - pooled)
        return record

    return asyncio.run(run())


def main() -> int:
    """Soak the repository's artifacts; the exit status."""
    seconds = float(os.environ.get("SOAK_SECONDS", "3600"))
    with tempfile.TemporaryDirectory(prefix="gradserve-soak-") as folder:
        root = Path(folder) / "artifacts"
        root.symlink_to(ROOT / "artifacts")
        with ServerProcess(root, workers=2, access_log=False).wait_ready() as server:
            record = soak(server, seconds, lambda line: print(line, flush=True))
    print(f"good {dict(record.good)}, hostile {dict(sorted(record.hostile.items()))}")
    print(f"memory {record.memory[0]:.1f} to {record.memory[-1]:.1f} MiB, {record.growth():+.1f}")
    for fault in record.faults():
        print(f"FAULT: {fault}")
    return 1 if record.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
