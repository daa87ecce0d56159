"""One request and its answer: what the application receives and sends (ASGI)."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

log = logging.getLogger("gradserve")

Header = tuple[bytes, bytes]
CRASH = b"Internal Server Error"
CRASH_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(CRASH)),
    (b"connection", b"close"),
]
# Answers without a body, whatever their headers say (RFC 9112, 6.3).
NO_BODY = frozenset({204, 304})


def _nothing() -> None:
    """In place of a callback that is done with."""


class Exchange:
    """A request, and the answer that is being given to it.

    The head of an answer is kept until its body comes, and sent with it: two writes would be two
    system calls and two packets, and a small ``/predict`` would take 1.27 times as much of the
    server's processor time. ``complete`` is called once the whole answer was written. A connection
    that does not go on is closed then; while the rest of a body is still on its way, that is left
    to ``complete``.
    """

    __slots__ = (
        "begun",
        "body",
        "changed",
        "chunked",
        "complete",
        "default_headers",
        "disconnected",
        "expects_continue",
        "flow",
        "has_news",
        "head",
        "keep_alive",
        "left",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
        "transport",
    )

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        default_headers: Sequence[Header],
        complete: Callable[[], None],
        *,
        expects_continue: bool,
        keep_alive: bool,
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.default_headers = default_headers
        self.complete = complete
        self.expects_continue = expects_continue
        self.keep_alive = keep_alive
        self.begun = False  # its task has run
        self.disconnected = False
        self.body: bytes | bytearray = b""  # what has arrived and was not received yet
        self.more_body = True
        self.has_news = False  # for the application: of the body, or that there is no more
        self.changed: asyncio.Event | None = None  # if it waits for them
        self.response_started = self.response_complete = False
        self.head = b""  # of the answer, while it is kept
        self.chunked = False
        self.left = 0  # bytes of the answer's body

    def add(self, piece: bytes) -> int:
        """A piece of the body has arrived. How much waits to be received."""
        if not self.body:
            self.body = piece
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += piece
        return len(self.body)

    def tell(self) -> None:
        """There is something to receive."""
        self.has_news = True
        if self.changed is not None:
            self.changed.set()

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer it."""
        self.begun = True
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self.disconnected:
                return
            log.error("the application failed", exc_info=error)
            if self.response_started:
                self.close()
            elif not self.disconnected:
                await self._crash()
        else:
            if not (self.response_complete or self.disconnected):
                log.error("the application ended without a whole answer")
                if self.response_started:
                    self.close()
                else:
                    await self._crash()
        finally:
            self.complete = _nothing  # it belongs to the connection, which refers to this

    async def receive(self) -> Message:
        """What has arrived of the body, once there is enough of it, or that the client has gone."""
        if self.expects_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        if not (self.disconnected or self.response_complete):
            self.flow.resume_reading()
            if not self.has_news:
                self.changed = self.changed or asyncio.Event()
                await self.changed.wait()
                self.changed = None
            self.has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Write the head or a part of the body. Raises RuntimeError for what is no answer."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("the answer is complete")
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"an answer can't begin with {kind}")
            self.head = self._head(message)
            self.response_started = True
            self.expects_continue = False
            return
        if kind != "http.response.body":
            raise RuntimeError(f"a body can't go on with {kind}")
        more = message.get("more_body", False)
        written = self._framed(message.get("body", b""), more)
        if self.head:
            written, self.head = self.head + written, b""
        if written:
            self.transport.write(written)
        if not more:
            self.response_complete = True
            self.tell()
            if not (self.keep_alive or self.more_body):
                self.transport.close()
            self.complete()

    def close(self) -> None:
        """Close the connection; of an answer that has begun, the head is sent."""
        if self.head:
            self.transport.write(self.head)
            self.head = b""
        self.transport.close()

    def _framed(self, body: bytes, more: bool) -> bytes:
        """A part of the body as it is written. Raises RuntimeError where it has another length."""
        if self.scope["method"] == "HEAD":
            return b""
        if self.chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return framed if more else framed + b"0\r\n\r\n"
        self.left -= len(body)
        if self.left < 0 or (self.left and not more):
            raise RuntimeError("the body is not as long as Content-Length says")
        return body

    def _head(self, message: Message) -> bytes:
        """The status line and the headers as they are written."""
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        lines = [STATUS_LINE[status]]
        length = None
        closes = False
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                closes = True
        number = len(headers) + 1
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
            number += 1
        if length is not None:
            self.left = length
        elif self.scope["method"] != "HEAD" and status not in NO_BODY:
            self.chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
            number += 1
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != number + 1 or head.count(b"\r") != number + 1 or b"\0" in head:
            raise RuntimeError("a header of the answer has a line break in it")
        return head

    async def _crash(self) -> None:
        await self.send({"type": "http.response.start", "status": 500, "headers": CRASH_HEADERS})
        await self.send({"type": "http.response.body", "body": CRASH})
