"""Load on the real server from one event loop, on raw connections: open or closed.

An open loop sends at the times that were intended, whatever the server does, and counts each
latency from that time: a server that stalls is charged for all who would have come meanwhile. A
closed loop waits for the answer, and so asks less of a server that is slow.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
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


class Connection(asyncio.Protocol):
    """One connection that is kept, on which one request at a time is asked."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._got = bytearray()
        self._answered: Callable[[int, bytes], None] | None = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and head of the answer. Raises EOFError if the connection breaks instead."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def answered(status: int, head: bytes) -> None:
            if answer.done():
                return
            if status:
                answer.set_result((status, head))
            else:
                answer.set_exception(EOFError("the connection broke"))

        self.send(request, answered)
        return await answer

    def send(self, request: bytes, answered: Callable[[int, bytes], None]) -> None:
        """Ask, and call ``answered`` with status and head, in lower case; 0 if it breaks."""
        self._answered = answered
        if self._transport is None or self._transport.is_closing():
            self._end(0, b"")
        else:
            self._transport.write(request)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A piece of an answer. Its body is dropped."""
        self._got += data
        head, end, _ = self._got.partition(b"\r\n\r\n")
        if not end:
            return
        lower = bytes(head).lower() + end
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._got) >= len(lower) + length:
            self._got.clear()
            self._end(int(lower[9:12]), lower)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Closed by the server."""
        self._end(0, b"")

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()

    def _end(self, status: int, head: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, head)


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
    asking: dict[int, float] = {}  # when each was meant to be sent
    connecting: set[asyncio.Task[None]] = set()
    opened = 0

    def ask(connection: Connection, number: int) -> None:
        def answered(status: int, head: bytes) -> None:
            tally.add(status, time.perf_counter() - asking.pop(number))
            if status == 429 and b"\r\nretry-after: " not in head:
                tally.without_retry_after += 1
            if status:
                idle.append(connection)

        connection.send(request, answered)

    async def connect(number: int) -> None:
        with suppress(OSError):
            ask(await Connection.open(port), number)

    start = time.perf_counter()
    total = int(rate * seconds)
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - start) * rate) + 1)
        tally.lag = max(tally.lag, time.perf_counter() - start - sent / rate)
        for number in range(sent, due):
            asking[number] = start + number / rate
            if idle:
                ask(idle.popleft(), number)
            elif opened < MAX_CONNECTIONS:
                opened += 1
                task = asyncio.create_task(connect(number))
                connecting.add(task)
                task.add_done_callback(connecting.discard)
        sent = due
        await asyncio.sleep(0.001)
    end = time.perf_counter() + HANG_SECONDS
    while asking and time.perf_counter() < end:
        await asyncio.sleep(0.01)
    for intended in asking.values():
        tally.add(0, time.perf_counter() - intended)
    for connection in idle:
        connection.close()
    return tally
