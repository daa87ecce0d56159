"""The HTTP/1.1 protocol: uvicorn's on httptools, with deadlines and limits that it lacks."""

import asyncio
import math
import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.lifecycle import Lifecycle
from service.runtime.errors import QueueFull
from service.server.exchange import Exchange
from service.server.framing import (
    CHUNKED,
    HEAD_END,
    MAX_HEAD_BYTES,
    HeadTooLarge,
    Malformed,
    check_beginning,
    read_head,
)
from service.server.intake import FREE_BYTES, LEAST_PIECE_BYTES, Held, Intake, piece_bytes
from service.server.shedding import AT_ONCE_SECONDS, Shedder
from service.settings import Settings
from service.web.refusal import Refusals, static_lines

LINGER_SECONDS = 1.0
# In a body of one-byte chunks, five bytes of framing come with each.
FRAMING_SHARE = 16
FIRST_REQUEST_SECONDS = 1.0  # for a connection that was accepted while shutting down
# A head is there as it came, as fields, and in parts for whoever works on it.
HEAD_COPIES = 3
NOT_HTTP = "The request is not valid HTTP"
EMPTY_LINE = b"\r\n"
EMPTY_LINES = re.compile(rb"[\r\n]*")  # before a request line: RFC 9112, 2.2


class Protocol(HttpToolsProtocol):
    """One connection.

    The head of a request must arrive in time and be of reasonable size, an answer must be read in
    time, and a client that goes away ends the work on its request. ``service_settings``,
    ``lifecycle`` and ``intake`` are set on a subclass, since uvicorn makes the instances.

    The parser never sees more than one request at a time: what follows stays in ``unread`` until
    the one before it is answered.
    """

    service_settings: Settings
    lifecycle: Lifecycle
    intake: Intake

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting_since: float | None = None
        self.unread_since: float | None = None  # when the client stopped reading its answer
        self.unread: bytes | bytearray = b""  # what was read and not parsed yet, from `position` on
        self.position = 0
        self.searched = 0  # bytes of the head that is arriving, in which its end is not
        self.head = b""  # of the request that is being answered
        self.in_head = self.in_body = False
        self.body_since = 0.0
        self.body_left = 0  # bytes, or CHUNKED
        self.body_bytes = self.chunked_bytes = 0  # of the content, and with the chunks' framing
        self.tail = b""  # the last bytes of chunks that were parsed: the end may be in them
        self.no_more_input = False  # the client has closed its side
        self.refused = False
        self.shed_at = -math.inf  # for being over capacity; the connection goes on
        self.idle_since = self.loop.time()  # or since when its request arrives
        self.counted = 0  # bytes of ``held``
        self.held: Held = self.app_state["held"]
        self.shedder: Shedder = self.app_state["shedder"]
        self.refusals: Refusals = self.app_state["refusals"]
        self.task: asyncio.Task[None] | None = None  # of the application, on ``cycle``
        self.places = 0  # of the queue, that ``task`` is counted with until it begins

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.held.max_connections:
            self.held.make_room(self.connections)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.intake.count(len(data), self.connections, self.loop)  # type: ignore[arg-type]
        if self.refused:
            return
        if self.unread:
            if isinstance(self.unread, bytes):
                self.unread = bytearray(self.unread)
            self.unread += data
        elif self.shedder.queue.full and self._idle() and self.shedder.refuses_unparsed(data):
            self._shed_unparsed(data)
            return
        else:
            self.unread = data
        self._advance()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. What it has sent whole is answered, as with ``nc -N``."""
        self.no_more_input = True
        self._advance()
        return True  # keep the connection open for answers; without any it is closed by now

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header has arrived. Trailers, which come after a body in chunks, are dropped."""
        if not self.in_body:
            name = name.lower()
            self.headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                # HTTP/1.0 has no such answer (RFC 9110, 10.1.1).
                self.expect_100_continue = self.parser.get_http_version() != "1.0"

    def on_headers_complete(self) -> None:
        """The head of a request has arrived."""
        self.waiting_since = None
        self.in_body = True
        self.body_since = self.loop.time()
        scope, parser = self.scope, self.parser
        # The target is a path, in ASCII: ``read_head`` has seen to it.
        path, _, query = self.url.partition(b"#")[0].partition(b"?")
        text = path.decode("ascii")
        version = parser.get_http_version()
        scope["http_version"] = version
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = self.root_path + (unquote(text) if "%" in text else text)
        scope["raw_path"] = self.root_path.encode("ascii") + path
        scope["query_string"] = query
        self.cycle: Exchange = Exchange(  # type: ignore[assignment]
            scope,  # type: ignore[arg-type]
            self.transport,
            self.flow,
            self.server_state.default_headers,
            self.on_response_complete,
            expects_continue=self.expect_100_continue,
            # While draining, the client is to open its next connection elsewhere, before this
            # worker is gone.
            keep_alive=version != "1.0"
            and parser.should_keep_alive()
            and not self.lifecycle.draining,
        )
        self._begin(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of a body. The request sees it when all of it is there, or a good deal."""
        self.body_bytes += len(body)
        cycle = self.cycle
        if self.refused or cycle.response_complete:
            return
        held = cycle.add(body)
        if held >= LEAST_PIECE_BYTES and held >= piece_bytes(len(self.connections)):
            self.flow.pause_reading()
            cycle.tell()

    def on_message_complete(self) -> None:
        """A request has arrived whole."""
        self.in_body = False
        if not self.refused:
            self.cycle.more_body = False
            self.cycle.tell()
            if self.cycle.response_complete and not self.cycle.keep_alive:
                self.transport.close()

    def on_response_complete(self) -> None:
        """An answer has been given: it is the next request's turn."""
        # An idle connection holds nothing of the request before.
        self.head = self.url = b""
        self.scope, self.headers = {}, []  # type: ignore[typeddict-item]
        self.cycle.scope = self.scope  # type: ignore[assignment]
        self.idle_since = self.loop.time()
        if self.counted:
            self._count()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if not self.cycle.keep_alive:
            self._end_output()  # the rest of a body is dropped as it comes
        if self.unread or self.no_more_input:
            # Not from here: as many requests as fit into one read would each be a call deeper.
            self.loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Parse what was read: the rest of a body, and the next head when its turn has come."""
        while self.position < len(self.unread) and not self._closing():
            if self.in_body:
                self._take_body()
            elif self._answering() or not self._take_head():
                break
        self.unread = self.unread[self.position :]
        self.position = 0
        self._count()
        if self.unread and self._answering():
            self.flow.pause_reading()
        elif self.no_more_input and not self.refused and (self.in_body or not self._answering()):
            self._close()  # nothing is left to answer, or the rest of a body won't come

    def _take_head(self) -> bool:
        """Parse one head if it is there whole."""
        data = self.unread
        start = self.position
        if data[start] in EMPTY_LINE:
            start = EMPTY_LINES.match(data, start).end()  # type: ignore[union-attr]
            self.position = start
            if start == len(data):
                return False
        if not self.in_head:
            self.in_head = True
            self.searched = 0
        end = data.find(HEAD_END, max(start, start + self.searched - len(HEAD_END)))
        size = (end + len(HEAD_END) if end >= 0 else len(data)) - start
        self.searched = size
        try:
            if size > MAX_HEAD_BYTES:
                raise HeadTooLarge("The head of the request is too large")
            if end < 0:
                check_beginning(data, start)
                return False
            whole = bytes(data[start : start + size])
            head, self.body_left = read_head(whole)
        except Malformed as error:
            self._refuse(431 if isinstance(error, HeadTooLarge) else 400, str(error))
            return False
        self.position = start + size
        self.head = whole
        self._count()
        if self.refused:
            return False
        self.in_head = False
        self.body_bytes = self.chunked_bytes = 0
        self.tail = b""
        self._parse(head)
        return True

    def _take_body(self) -> None:
        """Parse as much of a body as is there, and nothing behind it."""
        start, data = self.position, self.unread
        if self.body_left == CHUNKED:
            end = self._end_of_chunks()
        else:
            end = min(len(data), start + self.body_left)
            self.body_left -= end - start
        piece = data if start == 0 and end == len(data) else data[start:end]
        self.position = end
        self._parse(piece)
        if self.body_left == CHUNKED:
            self.tail = bytes(self.tail + piece[-3:])[-3:]
            self.chunked_bytes += len(piece)
            if self.chunked_bytes > MAX_HEAD_BYTES + FRAMING_SHARE * self.body_bytes:
                self._refuse(400, "The chunks' sizes, extensions and trailers are too long")
        elif self.in_body != (self.body_left > 0):
            self._refuse(400, NOT_HTTP)

    def _end_of_chunks(self) -> int:
        """Up to where chunks can be parsed without passing their end.

        Whatever a body in chunks holds, it ends with an empty line.
        """
        data, start = self.unread, self.position
        across = (self.tail + data[start : start + 3]).find(HEAD_END)
        if across >= 0:
            return start + across + len(HEAD_END) - len(self.tail)
        end = data.find(HEAD_END, start)
        return end + len(HEAD_END) if end >= 0 else len(data)

    def _count(self) -> None:
        """Count what this connection holds; without room for it, it is refused and closed."""
        size = len(self.unread) - self.position + HEAD_COPIES * len(self.head)
        if size <= FREE_BYTES or self.refused:
            size = 0
        if size == self.counted:
            return
        try:
            self.held.change(self.counted, size)
        except QueueFull as error:
            if self._answering():
                # Its answer is given, and what was sent behind it is not read.
                self.unread, self.position, self.cycle.keep_alive = b"", 0, False
            else:
                self._refuse(429, str(error))
        else:
            self.counted = size

    def _parse(self, data: bytes | bytearray) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, NOT_HTTP)

    def _begin(self, exchange: Exchange) -> None:
        """Have the application answer, unless there is no room for the request."""
        if self.shedder.refuses(exchange.scope):
            exchange.response_started = exchange.response_complete = True
            self._shed(close=not exchange.keep_alive)
            return
        self.places = self.shedder.places(exchange.scope["path"])
        self.shedder.queue.arriving += self.places
        self.task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(self.task)

    async def _answer(self, exchange: Exchange) -> None:
        task = self.task
        self.shedder.queue.arriving -= self.places
        try:
            await exchange.run(self.app)
        finally:
            self.tasks.discard(task)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client has disconnected: cancel the work on its request, and free its place."""
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]
        self.flow.resume_writing()
        self.held.sent(self)
        self.held.change(self.counted, 0)
        self.counted = 0
        exchange = self.cycle
        if exchange is None:
            return
        exchange.tell()
        # A request that has been answered may still be cleaning up: let it finish.
        if self.task is not None and not exchange.response_complete:
            exchange.disconnected = True
            self.task.cancel()
            if not exchange.begun:
                self.shedder.queue.arriving -= self.places
                self.tasks.discard(self.task)

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        self.unread_since = self.loop.time()
        self.held.unsent(self, self.transport.get_write_buffer_size())
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.unread_since = None
        self.held.sent(self)
        super().resume_writing()

    def check_deadlines(self, now: float) -> None:
        """Close the connection if its client is too slow. Called about once a second."""
        if self.refused:
            return
        limits, idle = self.service_settings, self._idle_since()
        if self.unread_since is not None and now - self.unread_since > limits.write_seconds:
            self.transport.abort()
        if self.in_body and now - self.body_since > limits.body_seconds:
            self._cut_short("The body was not complete in time")
        if self._answering() or self.in_body:
            self.waiting_since = None
        elif idle is not None:
            # Looked at here: to set and cancel a timer with each answer takes a fiftieth of one.
            self.waiting_since = None
            if now - idle > limits.keep_alive_seconds:
                self.transport.close()
        elif self.waiting_since is None:
            self.waiting_since = now
        elif now - self.waiting_since > limits.header_seconds:
            self._refuse(408, "The head of the request was not complete in time")

    def shutdown(self) -> None:
        """Close when what was sent is answered. Of a new connection, the first request is."""
        if self.cycle is None and not self._closing():
            self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_unused)
        elif not self.in_head:
            super().shutdown()

    def _idle_since(self) -> float | None:
        """Since when nothing has come after the last answer; None while no answer is the last."""
        if self.in_head or self.in_body or self._answering():
            return None
        last = self.shed_at if self.cycle is None else max(self.shed_at, self.idle_since)
        return last if last > -math.inf else None

    def _close_if_unused(self) -> None:
        if self.cycle is None and not self.in_head:
            self.transport.close()

    def pause(self) -> None:
        """Stop reading from the client."""
        self.flow.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def may_be_read(self) -> bool:
        """Is it open, and not paused for a reason of its own?"""
        return not (self.flow.read_paused or self.transport.is_closing())

    def pause_input(self) -> None:
        """Stop reading for this turn of the event loop."""
        self.transport.pause_reading()

    def resume_input(self) -> None:
        """Read again after it."""
        self.transport.resume_reading()

    def abort(self) -> None:
        """Close it, and lose what it has not sent."""
        self.transport.abort()

    def waits_since(self) -> float | None:
        """Since when it has waited for its client; None if the client waits for it."""
        if self._closing() or (self._answering() and not self.in_body):
            return None
        return self.body_since if self.in_body else self.idle_since

    def give_way(self) -> None:
        """Refuse what it has begun to send, and close it."""
        if self.in_head or self.in_body:
            self._refuse(429, "There are too many connections; try again shortly")
        self.transport.close()

    def _close(self) -> None:
        """Close it. Of an answer that has begun, what was written is sent."""
        if self.cycle is None:
            self.transport.close()
        else:
            self.cycle.close()

    def _closing(self) -> bool:
        return self.refused or self.parser is None or self.transport.is_closing()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _idle(self) -> bool:
        """Is everything answered that the client has sent, and may it send more?"""
        return not (self.in_head or self.in_body or self._answering() or self.lifecycle.draining)

    def _client(self) -> str | None:
        return self.client[0] if self.client else None

    def _shed(self, *, close: bool) -> None:
        """Refuse a request for which there is no room, and that has not begun."""
        answer = self.shedder.answer(self.head, self._date(), self._client(), close=close)
        self.transport.write(answer)
        self.on_response_complete()
        if not close:  # else it closes when the body has come
            self._pause_if_again()  # last, since on_response_complete resumes reading

    def _shed_unparsed(self, data: bytes) -> None:
        """The same before anything of the request has been parsed: nothing is to be tidied up."""
        answer = self.shedder.answer(data, self._date(), self._client())
        self.transport.write(answer)
        self._pause_if_again()

    def _date(self) -> bytes:
        """The header lines that uvicorn has every answer begin with: the date."""
        return b"".join([b"%s: %s\r\n" % pair for pair in self.server_state.default_headers])

    def _pause_if_again(self) -> None:
        """Pause a client that asks again at once; pausing one that has waited only costs time."""
        now = self.loop.time()
        if now - self.shed_at < AT_ONCE_SECONDS:
            self.shedder.pause(self)
        self.shed_at = now

    def _cut_short(self, detail: str) -> None:
        if self.cycle.response_started:
            self._close()  # answered before the body had ended
        else:
            self.cycle.disconnected = True
            self._refuse(408, detail)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what can't be answered by the application, and close."""
        if self._closing():
            return
        if self._answering():
            if self.cycle.response_started:
                self._close()  # a second answer within the first would be taken for it
                return
            self.cycle.disconnected = True  # this is its answer
        elif self.in_body:
            self.transport.close()  # it was answered before its body was found to be wrong
            return
        self.refused = True
        head = self.head
        if self.in_head:  # as far as it is there
            head = bytes(self.unread[self.position : self.position + MAX_HEAD_BYTES])
        # Nothing of it is wanted while this lingers.
        self.unread, self.position, self.head = b"", 0, b""
        self._count()
        response = self.refusals.response(status, detail, head)
        request_id, lines = self.refusals.headers(head)
        self.transport.write(
            STATUS_LINE[status]
            + self._date()
            + static_lines(response)
            + lines
            + b"connection: close\r\n\r\n"
            + bytes(response.body)
        )
        self.refusals.record(status, head, request_id, len(response.body), self._client())
        self._end_output()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _end_output(self) -> None:
        """Say that no more is sent, and go on reading for a moment.

        Closing with input unread would reset the connection, and lose the answer on its way.
        """
        with suppress(OSError):  # asyncio's own, of a client that has gone
            self.transport.write_eof()
