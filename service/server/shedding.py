"""Load shedding: refuse requests over capacity so cheaply that the others keep their speed.

A refusal by the application takes a fifth of a millisecond, half of what the answer would have
taken; at ten times the capacity nothing else would get done. So while the queue is full a request
for it is refused from its head, before a task is made, or before it is parsed if all of it has
arrived. A client that retries at once is refused once more; then its connection is not read until
the queue has a free place, or for at most ``PAUSE_SECONDS`` (backpressure). Of 640 clients that
retry at once, more get an answer for the same processor time: measured on a noisy machine, the same
direction in four runs; how much more is not certain.

A request without a valid key, or for another host, gets that error from the application instead,
however full the queue is: ``checks`` come first.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol as Interface

from starlette.types import Scope

from service.runtime.queue import Queue
from service.server.framing import HEAD_END
from service.web.errors import Busy, from_problem
from service.web.refusal import Refusals, static_lines

Check = Callable[[Scope], bool]

# The endpoints whose every request needs a place in the queue.
PATHS = frozenset({"/classify", "/explain"})
# A refusal is promised within 0.1 s; the rest is for two turns of the event loop.
PAUSE_SECONDS = 0.06
# A client whose next request comes within this time of a refusal is paused. Longer than a pause, so
# that one that never waits is paused every time but the first.
AT_ONCE_SECONDS = 0.1
LOOK_SECONDS = 0.01  # between looks for pauses that are over: a timer for each would cost more
MAX_PLAIN_BYTES = 4096  # of a head; a longer one is left to the parser
# A head that can be read in one way only; every other is left to the parser.
PLAIN_HEAD = re.compile(
    rb"POST (/classify|/explain)(?:\?[!-~]*)? HTTP/1\.1\r\n(?:[!-~][!-~ ]*\r\n)+\r\n"
)
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n")
NOT_PLAIN = re.compile(rb"\r\n(?:connection(?!: keep-alive\r\n)|expect|transfer-encoding|upgrade)")


class Pausable(Interface):
    """What is paused: a connection."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again. Does nothing if it has been resumed already, or is closed."""


def _answer() -> tuple[bytes, bytes]:
    """The head of a refusal as far as all are the same, and the body."""
    response = from_problem(Busy())
    head = b"HTTP/1.1 429 Too Many Requests\r\n" + static_lines(response)
    return head, bytes(response.body)


def _plain_request(head: bytes) -> tuple[str, int] | None:
    """The path of a request with this head, and its length with its body; None if in any doubt."""
    plain = PLAIN_HEAD.fullmatch(head)
    if plain is None:
        return None
    lower = head.lower()
    lengths = LENGTH.findall(lower)
    if (
        len(lengths) != 1
        or lower.count(b"content-length") != 1
        or lower.count(b"\r\nhost:") != 1
        or NOT_PLAIN.search(lower)
    ):
        return None
    return plain[1].decode(), len(head) + int(lengths[0])


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a plain head, as ASGI has them."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    return [(name.lower(), value.strip()) for name, _, value in lines]


class Shedder:
    """Decides which requests of a worker are refused, and which connections wait for room.

    Only who passes all ``checks``, which look at the headers of a scope, is refused here.
    """

    head, body = _answer()

    def __init__(self, queue: Queue, refusals: Refusals, checks: Sequence[Check] = ()) -> None:
        self.queue = queue
        self._refusals = refusals
        self._checks = checks
        self._paused: deque[tuple[float, Pausable]] = deque()  # until when, and who
        self._looking = False
        # Refusals that the metrics don't have yet: adding them one by one would cost more.
        self._uncounted = dict.fromkeys(PATHS, 0)
        queue.on_room = self._resume

    def refuses(self, scope: Scope) -> bool:
        """Is there no room for this request? Counts the refusal, if so."""
        path = scope["path"]
        if not self.queue.full or path not in PATHS or scope["method"] != "POST":
            return False
        if not all(check(scope) for check in self._checks):
            return False
        self._uncounted[path] += 1
        return True

    def refuses_unparsed(self, data: bytes) -> bool:
        """The same for what a connection sent between requests, if that is one whole request.

        Where ``data`` leaves any doubt about where its request ends, this is False, and the parser
        decides.
        """
        if not self.queue.full:
            return False
        head = data[: data.find(HEAD_END, 0, MAX_PLAIN_BYTES) + len(HEAD_END)]
        plain = _plain_request(head)
        if plain is None:
            return False
        path, length = plain
        if len(data) != length:
            return False
        if self._checks:
            scope = {"headers": _fields(head)}
            if not all(check(scope) for check in self._checks):
                return False
        self._uncounted[path] += 1
        return True

    def answer(
        self, head: bytes, date: bytes = b"", client: str | None = None, *, close: bool = False
    ) -> bytes:
        """The refusal of the request that begins with ``head``, whole; it is logged.

        ``date`` are header lines as well.
        """
        self._look_later()  # which updates the metrics
        request_id, lines = self._refusals.headers(head[:MAX_PLAIN_BYTES])
        path = "/classify" if head.startswith(b"POST /c") else "/explain"
        now = asyncio.get_running_loop().time()
        self._refusals.log(429, "POST", path, request_id, len(self.body), client, now)
        connection = b"connection: close\r\n" if close else b""
        return b"%s%s%s%s\r\n%s" % (self.head, date, lines, connection, self.body)

    def places(self, path: str) -> int:
        """How many places a request to ``path`` takes at least, once it begins."""
        return 1 if path in PATHS else 0

    def pause(self, connection: Pausable) -> None:
        """Read no more from ``connection`` until there is room, or some time has passed."""
        connection.pause()
        until = asyncio.get_running_loop().time() + PAUSE_SECONDS
        self._paused.append((until, connection))
        self._look_later()

    def _resume(self) -> None:
        if self._paused:
            self._paused.popleft()[1].resume()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Resume connections whose pause is over, and update the metrics."""
        now = asyncio.get_running_loop().time()
        while self._paused and self._paused[0][0] <= now:
            self._resume()
        for path, refusals in self._uncounted.items():
            if refusals:
                self._refusals.count(429, "POST", path, refusals)
                self._uncounted[path] = 0
        self._looking = False
        if self._paused:
            self._look_later()
