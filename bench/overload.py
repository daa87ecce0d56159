"""What a server still does when it is asked for more than it can do: multiples of its knee.

An open loop sends at the times that were intended, whatever the server does, as people do who know
nothing of each other; a latency counts from the intended time. What counts is the right answer
within ``IN_TIME`` seconds: who has waited longer has gone.
"""

import asyncio
import json
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httptools
import uvloop

from bench.measure import FAILURES, Serving, Step
from bench.servers import Server
from bench.subjects import Question, right

MULTIPLES = (1, 2, 5, 10)
KNEE_CONNECTIONS = 16
IN_TIME = 1.0  # seconds
MAX_CONNECTIONS = 4000
SPARE_FILES = 100
LOOK_SECONDS = 0.001


@dataclass(frozen=True)
class Slice:
    """``seconds`` of overload, right after the knee (requests a second) was measured.

    ``in_time`` counts right answers within ``IN_TIME``, ``sent`` all requests; ``late_by`` is how
    late the generator itself was at worst, in seconds.
    """

    multiple: int
    knee: float
    sent: int
    in_time: int
    refused: int
    seconds: float
    late_by: float


@dataclass
class Curve:
    """What one server does at each multiple. ``failure`` says in words why there is no more."""

    name: str
    role: str
    slices: list[Slice] = field(default_factory=list)
    failure: str | None = None


class Connection(asyncio.Protocol):
    """A connection that is kept, with one request at a time.

    ``answered`` is called with the status and the body, or with 0 if the connection broke.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: Callable[[int, bytes], None] | None = None

    def ask(self, request: bytes, answered: Callable[[int, bytes], None]) -> None:
        """Send a request."""
        self._answered = answered
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        if self._transport is None or self._transport.is_closing():
            self._end(0)
        else:
            self._transport.write(request)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._body += body

    def on_message_complete(self) -> None:
        """It is there."""
        if not self._parser.should_keep_alive():
            self.close()
        self._end(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Closed."""
        self._end(0)

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()

    @property
    def usable(self) -> bool:
        """May it be asked again?"""
        return self._transport is not None and not self._transport.is_closing()

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, bytes(self._body))


class Generator:
    """Sends one request over and over, ``rate`` a second, and judges the answers."""

    def __init__(self, port: int, request: bytes, is_right: Callable[[bytes], bool]) -> None:
        self.port = port
        self.request = request
        self.is_right = is_right
        self.sent = self.in_time = self.refused = self.open = self.asking = 0
        self.late_by = 0.0
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float, lead: float = 0.0) -> None:
        """Send for ``lead`` seconds, then for ``seconds`` of which the answers count.

        The first requests find an empty queue, and so say little of overload.
        """
        first = int(rate * lead)
        total = first + max(1, int(rate * seconds))
        begun = 0
        start = time.perf_counter()
        while begun < total:
            now = time.perf_counter() - start
            due = min(total, int(now * rate) + 1)
            self.late_by = max(self.late_by, now - begun / rate)
            for number in range(begun, due):
                self._send(start + number / rate, counts=number >= first)
            begun = due
            await asyncio.sleep(LOOK_SECONDS)
        self.sent = total - first
        end = time.perf_counter() + IN_TIME
        while (self.asking or self._connecting) and time.perf_counter() < end:
            await asyncio.sleep(LOOK_SECONDS)
        for task in self._connecting:
            task.cancel()
        for connection in self._all:
            connection.close()

    def _send(self, meant: float, *, counts: bool) -> None:
        while self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                self._ask(connection, meant, counts=counts)
                return
            self._forget(connection)
        if self.open < MAX_CONNECTIONS:
            self.open += 1
            task = asyncio.get_running_loop().create_task(self._connect(meant, counts=counts))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, meant: float, *, counts: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        except OSError:
            self.open -= 1
            return
        self._all.add(connection)
        self._ask(connection, meant, counts=counts)

    def _ask(self, connection: Connection, meant: float, *, counts: bool) -> None:
        def answered(status: int, body: bytes) -> None:
            self.asking -= 1
            in_time = time.perf_counter() - meant <= IN_TIME
            if counts and status == 200 and in_time and self.is_right(body):
                self.in_time += 1
            self.refused += counts and status in (429, 503)
            if status and connection.usable:
                self._idle.append(connection)
            else:
                self._forget(connection)

        self.asking += 1
        connection.ask(self.request, answered)

    def _forget(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.discard(connection)
            self.open -= 1


def compared(server: Server) -> bool:
    """Is a server's curve drawn: ours, and each other one on the same graph, without batches?"""
    roles = ("ours", "same graph", "tuned by hand")
    batched = "BENCH_BATCH" in server.environment
    return server.endpoint == "classify" and server.role in roles and not batched


def curve(
    server: Server,
    question: Question,
    seconds: float,
    substitutes: Mapping[str, str],
    environment: Mapping[str, str],
    scratch: Path,
) -> Curve:
    """A slice of ``seconds`` at each multiple, in turn with the knee: what 16 connections get.

    The machine's speed drifts, so each slice is held against the knee that was measured before it.
    Never raises for what is the server's own failure.
    """
    _allow_connections()
    found = Curve(server.name, server.role)
    with Serving(server, substitutes, environment, scratch) as serving:
        try:
            serving.wait_until_right(question)
            serving.warm_up(question)
            for multiple in MULTIPLES:
                knee = serving.load(Step(question, KNEE_CONNECTIONS, seconds)).requests_per_s
                if not knee:
                    raise RuntimeError(f"it served nothing at {KNEE_CONNECTIONS} connections")
                found.slices.append(one_slice(serving, question, multiple, knee, seconds))
        except FAILURES as error:
            found.failure = f"{error}; {serving.running.last_words()}"
    return found


def one_slice(
    serving: Serving, question: Question, multiple: int, knee: float, seconds: float
) -> Slice:
    """Ask ``multiple`` times as often as the server can answer."""
    content = question.body.file.read_bytes()
    head = (
        f"POST {serving.path} HTTP/1.1\r\nHost: 127.0.0.1:{serving.port}\r\n"
        f"Content-Type: {question.body.content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    )

    def is_right(body: bytes) -> bool:
        with suppress(ValueError, LookupError, TypeError):
            return right(serving.server.found(json.loads(body)), question.expected)
        return False

    generator = Generator(serving.port, head.encode() + content, is_right)
    uvloop.run(generator.run(multiple * knee, seconds, lead=IN_TIME))
    return Slice(
        multiple,
        knee,
        generator.sent,
        generator.in_time,
        generator.refused,
        seconds,
        generator.late_by,
    )


def _allow_connections() -> None:
    wanted = MAX_CONNECTIONS + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
