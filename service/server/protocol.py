"""The HTTP/1.1 protocol: uvicorn's on httptools, with deadlines and limits that it lacks."""

import asyncio
import math
import time
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.lifecycle import Lifecycle
from service.server.shedding import AT_ONCE_SECONDS, Shedder
from service.settings import Settings
from service.web.errors import PROBLEM_TYPE, problem_response

# Not 100 Continue, after which the client has yet to send its body.
FINAL_STATUS = tuple(b"HTTP/1.1 %d" % first for first in (2, 3, 4, 5))
# Each piece costs a turn of the loop: uvicorn's 64 KiB make a photo of 2.5 MB take 8 % longer.
PIECE_BYTES = 256 * 1024
LINGER_SECONDS = 1.0
MAX_HEAD_BYTES = 64 * 1024
HTTP_VERSIONS = ("1.0", "1.1")


class OneWrite:
    """A transport that sends the head of an answer together with its body.

    uvicorn writes the two one by one: two system calls, and two packets for the client to wake for.
    What starts with a final status line is a head; a body, a close or ``flush`` follows at once.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort
        self.write_eof = transport.write_eof
        self.write_whole = transport.write  # for whole answers, while no head is kept

    def write(self, data: bytes) -> None:
        """Send ``data``, or keep it for the next call if it is a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(FINAL_STATUS) and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what was kept: the answer has no body."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send what was kept, then close."""
        self.flush()
        self._transport.close()


class Protocol(HttpToolsProtocol):
    """One connection.

    The head of a request must arrive in time and be of reasonable size, an answer must be read in
    time, and a client that goes away ends the work on its request. ``service_settings`` and
    ``lifecycle`` are set on a subclass, since uvicorn makes the instances.
    """

    service_settings: Settings
    lifecycle: Lifecycle

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting_since: float | None = None
        self.unread_since: float | None = None
        # Of the head that is arriving: what came in reads after the one in which it began, and the
        # length of that one.
        self.head_bytes = 0
        self.first_read = self.read_bytes = 0
        self.in_head = self.in_body = False
        self.body_since = 0.0
        self.refused = False
        self.shed_at = -math.inf  # for being over capacity; the connection goes on
        self.deaf = False
        self.shedder: Shedder = self.app_state["shedder"]
        self.task: asyncio.Task[None] | None = None
        self.running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.transport = OneWrite(transport)  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.refused or self.deaf:
            return
        if self._idle() and self.shedder.refuses_unparsed(data):
            self._shed_unparsed()
            return
        self.read_bytes = len(data)
        self.head_bytes += len(data)
        super().data_received(data)
        if self.head_bytes > MAX_HEAD_BYTES and not self.in_body:
            self._refuse(431, "The head of the request is too large")

    def on_message_begin(self) -> None:
        """The first byte of a request has arrived."""
        self.in_head = True
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request has arrived."""
        self.in_head = False
        if self.parser.get_http_version() not in HTTP_VERSIONS:
            self._refuse(400, "The version of HTTP should be 1.0 or 1.1")
            return
        at_most = self.first_read + self.head_bytes
        if at_most > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            self._refuse(431, "The head of the request is too large")
            return
        self.waiting_since = None
        self.head_bytes = 0
        self.in_body = True
        self.body_since = time.monotonic()
        super().on_headers_complete()
        if self.lifecycle.draining and self.cycle is not None:
            # The client then opens its next connection elsewhere, before this worker is gone.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body. The request sees it when all of it is there, or a good deal."""
        if self.refused or self.deaf:
            return
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) >= PIECE_BYTES:
            self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request has arrived whole; what comes next is the head of another."""
        if self.refused or self.deaf:
            return
        self.head_bytes = 0
        self.first_read = self.read_bytes
        self.in_body = False
        super().on_message_complete()
        answered = self.cycle.response_complete and not self.transport.is_closing()
        if answered and self.timeout_keep_alive_task is None:
            # Before all of it was here, and from now on idle: that is ended by closing, not by 408.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """An answer has been given."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        shedder, queue = self.shedder, self.shedder.queue
        path = cycle.scope["path"]
        if shedder.refuses(path):
            cycle.response_started = cycle.response_complete = True
            self._shed(shedder.answer(close=not cycle.keep_alive), close=not cycle.keep_alive)
            return
        places = shedder.places(path)
        queue.arriving += places
        self.running = cycle
        begun = False

        async def until_gone(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal begun
            begun = True
            queue.arriving -= places
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                if not cycle.disconnected:
                    raise

        def ended(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            if not begun:  # its client had gone by then
                queue.arriving -= places

        self.task = self.loop.create_task(cycle.run_asgi(until_gone))
        self.task.add_done_callback(ended)
        self.tasks.add(self.task)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: whatever is being done for it stops, and frees its place."""
        super().connection_lost(exc)
        # Not the latest cycle, which uvicorn looks at: with pipelining that may not have begun. A
        # request that has been answered may still be tidying up: that goes on.
        running = self.running
        if running is not None and self.task is not None and not running.response_complete:
            running.disconnected = True
            self.task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        self.unread_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.unread_since = None
        super().resume_writing()

    def check_deadlines(self, now: float) -> None:
        """Close the connection if its client is too slow. Called about once a second."""
        if self.refused:
            return
        limits = self.service_settings
        if self.unread_since is not None and now - self.unread_since > limits.write_seconds:
            self.transport.abort()
        if self.in_body and now - self.body_since > limits.body_seconds:
            self._cut_short("The body was not complete in time")
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.in_body or self.timeout_keep_alive_task is not None:
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = now
        elif now - self.waiting_since > limits.header_seconds:
            self._refuse(408, "The head of the request was not complete in time")

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, which has been idle for long, unless it was refused meanwhile.

        A refusal does not put this off by itself, as an answer does: a timer each costs too much.
        """
        rest = self.shed_at + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                rest, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or what a parser could take in two ways."""
        self._refuse(400, msg)

    def pause(self) -> None:
        """Leave what the client sends where it is."""
        self.flow.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _head_size(self) -> int:
        """Bytes of the head that has just arrived."""
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.url) + fields

    def _idle(self) -> bool:
        """Is everything answered that the client has sent, and may it send more?"""
        return not (self.in_head or self.in_body or self.lifecycle.draining) and (
            self.cycle is None or self.cycle.response_complete
        )

    def _shed(self, answer: bytes, *, close: bool = False) -> None:
        """Refuse a request that has not begun."""
        self.transport.write(answer)
        if close:
            self.transport.close()
        self.on_response_complete()
        # Last, for the line above has uvicorn read on.
        if not self.transport.is_closing():
            self._pause_if_again()

    def _shed_unparsed(self) -> None:
        """The same before anything of the request has been parsed: nothing is to be tidied up."""
        self.transport.write_whole(self.shedder.answer())  # type: ignore[attr-defined]
        self._pause_if_again()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_handler()

    def _pause_if_again(self) -> None:
        """Pause a client that asks again at once. One that waited costs less without."""
        now = self.loop.time()
        if now - self.shed_at < AT_ONCE_SECONDS:
            self.shedder.pause(self)
        self.shed_at = now

    def _cut_short(self, detail: str) -> None:
        if self.cycle.response_started:
            self.transport.close()  # answered before the body had ended
        else:
            self.cycle.disconnected = True
            self._refuse(408, detail)

    def _refuse(self, status: int, detail: str) -> None:
        if self.refused or self.transport.is_closing():
            return
        running = self.running
        if running is not None and not running.response_complete:
            if not self.in_body:
                # The request before is whole: it is answered, as the last one.
                self.deaf, self.cycle.keep_alive = True, False
                return
            if running is not self.cycle:
                # So is that one; this one's turn to be refused comes with its body's deadline.
                self.deaf = True
                return
            running.disconnected = True  # this is its answer
        self.refused = True
        body = problem_response(status, detail).body
        head = (
            b"content-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (PROBLEM_TYPE.encode(), len(body))
        )  # fmt: skip
        self.transport.write(STATUS_LINE[status] + head + bytes(body))
        # Closing with input unread would reset the connection, and lose the answer on its way: so
        # say that nothing follows, and drop what still comes for a moment.
        with suppress(OSError):  # asyncio's own, of a client that has gone
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
