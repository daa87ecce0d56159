"""Load on the real server from one event loop, on raw connections: open or closed.

An open loop sends at the times that were intended, whatever the server does, and counts each
latency from that time: a server that stalls is charged for all who would have come meanwhile. A
closed loop waits for the answer, and so asks less of a server that is slow.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from tests.hostile.wire import HANG_SECONDS

# More at once than any server here answers; beyond them requests count as never answered.
MAX_CONNECTIONS = 4000


@dataclass
class Tally:
    """Latencies in seconds by status; status 0 is a connection that broke or never answered."""

    seconds: float
    latencies: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0
    lag: float = 0.0  # by which the generator itself was late at worst

    def add(self, status: int, latency: float) -> None:
        """Note an answer."""
        self.latencies.setdefault(status, []).append(latency)

    def count(self, status: int) -> int:
        """Answers with a status."""
        return len(self.latencies.get(status, ()))

    def rate(self, status: int = 200) -> float:
        """Answers with a status per second."""
        return self.count(status) / self.seconds

    def quantile(self, status: int, share: float) -> float:
        """The latency that ``share`` of the answers with a status keep within."""
        ordered = sorted(self.latencies.get(status, ()))
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Connection:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and head of the answer; its body is read and dropped."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await self.reader.readexactly(length)
        return int(head[9:12]), lower

    def close(self) -> None:
        """Disconnect."""
        self.writer.close()


async def closed_loop(port: int, request: bytes, clients: int, seconds: float) -> Tally:
    """``clients`` that each ask again as soon as they are answered."""
    tally = Tally(seconds)
    end = time.perf_counter() + seconds

    async def client() -> None:
        connection = await Connection.open(port)
        while (started := time.perf_counter()) < end:
            status, _ = await connection.ask(request)
            tally.add(status, time.perf_counter() - started)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


async def open_loop(port: int, request: bytes, rate: float, seconds: float) -> Tally:
    """``rate`` requests a second for ``seconds``, evenly spaced, on connections that are kept."""
    tally = Tally(seconds)
    idle: deque[Connection] = deque()
    running: set[asyncio.Task[None]] = set()
    opened = 0

    async def one(intended: float) -> None:
        nonlocal opened
        status = 0
        connection = None
        with suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(HANG_SECONDS):
                if idle:
                    connection = idle.popleft()
                elif opened < MAX_CONNECTIONS:
                    opened += 1
                    connection = await Connection.open(port)
                else:
                    raise OSError("no connection is free")
                status, head = await connection.ask(request)
                if status == 429 and b"\r\nretry-after: " not in head:
                    tally.without_retry_after += 1
        tally.add(status, time.perf_counter() - intended)
        if connection is not None and status:
            idle.append(connection)

    start = time.perf_counter()
    total = int(rate * seconds)
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - start) * rate) + 1)
        tally.lag = max(tally.lag, time.perf_counter() - start - sent / rate)
        for number in range(sent, due):
            task = asyncio.create_task(one(start + number / rate))
            running.add(task)
            task.add_done_callback(running.discard)
        sent = due
        await asyncio.sleep(0.001)
    if running:
        await asyncio.wait(running)
    for connection in idle:
        connection.close()
    return tally
