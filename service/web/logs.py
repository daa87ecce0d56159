"""A request id on every answer, and one record in the log for every request."""

import asyncio
import logging
import random
import re
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.errors import ClientGone
from service.web.metrics import DROPPED
from service.web.request_record import RequestRecord, current
from service.web.stderr import DroppingStream

_root = logging.getLogger("gradserve")
access = logging.getLogger("gradserve.access")
Observe = Callable[[Scope, int, float, RequestRecord], None]
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# https://www.w3.org/TR/trace-context/#traceparent-header; all zeros are not allowed.
_TRACEPARENT = re.compile(
    rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?"
)
MAX_WARNINGS, MAX_WARNING = 3, 300  # logged of one request; characters of each
MAX_PATH = 200  # characters of a path in the log
MOST_WAITING = 1000  # records of answers
CLIENT_GONE = 499  # nginx's status for it; nothing is sent


class TextFormat(logging.Formatter):
    """``time level message``, for people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record, with the id of the request in which a fault happened."""
        text = super().format(record)
        request_record = current.get()
        if record.exc_info and request_record is not None:
            text = f"{text}\n(request {request_record.request_id})"
        return text


class JsonFormat(logging.Formatter):
    """One JSON object a record, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback is a member of it."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        request_record = current.get()
        if request_record is not None and request_record.request_id:
            document["request_id"] = request_record.request_id
        document |= getattr(record, "members", {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


# Of one request: when, method, path, client, route, status, seconds, bytes, its record.
_Answer = tuple[float, str, str, str | None, str | None, int, float, int, RequestRecord]


def _described(answer: _Answer) -> dict[str, Any]:
    """The members of its record."""
    _, method, path, client, route, status, seconds, size, request_record = answer
    if not (path.isascii() and path.isprintable()) or "\\" in path:
        path = path.encode("unicode_escape").decode()
    path = path[:MAX_PATH]
    members: dict[str, Any] = {
        "message": f"{method} {path} {status} {seconds * 1000:.1f} ms {request_record.request_id}",
        "request_id": request_record.request_id,
        "method": method,
        "path": path,
        "status": status,
        "ms": round(seconds * 1000, 2),
        "bytes": size,
    }
    if client:
        members["client"] = client
    if route:
        members["route"] = route
    if request_record.model:
        members["model"], members["version"] = request_record.model, request_record.version
    if request_record.trace:
        members["traceparent"] = request_record.trace
    if request_record.seconds:  # copied: a thread may still work on a request whose client has gone
        stages = tuple(request_record.seconds.items())
        members["stages_ms"] = {stage: int(spent * 1e6) / 1000 for stage, spent in stages}
    return members


class _BatchHandler(logging.StreamHandler[DroppingStream]):
    """Writes the records of answers together, and each other record at once.

    Each write wakes the reader, and each record that ``logging`` makes takes four times as long as
    the JSON alone; right after the model, whose weights fill the caches, three times that.
    """

    def __init__(self, stream: DroppingStream) -> None:
        super().__init__(stream)
        self._answers: deque[_Answer] = deque()

    def note(self, answer: _Answer) -> None:
        """Write its record later."""
        self._answers.append(answer)
        if len(self._answers) >= MOST_WAITING:
            self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after those that wait."""
        self.flush()
        super().emit(record)

    def flush(self) -> None:
        """Write what waits."""
        # Where standard error is closed there is no log.
        with self.lock or nullcontext(), suppress(OSError, ValueError):
            answers = [self._answers.popleft() for _ in range(len(self._answers))]
            self.stream.write_all([self._line(answer) for answer in answers])
            super().flush()

    def _line(self, answer: _Answer) -> bytes:
        when = datetime.fromtimestamp(answer[0], UTC)
        return orjson.dumps({"time": when, "level": "info", **_described(answer)}) + b"\n"


# The handler that ``configure`` has made, if it writes answers together.
_batch_handler: _BatchHandler | None = None


def configure(level: str, style: str = "auto") -> None:
    """Send the service's log to standard error: ``style`` text, json, or auto.

    ``auto`` writes JSON unless standard error is a terminal.
    """
    global _batch_handler  # noqa: PLW0603
    stream = DroppingStream(sys.stderr, DROPPED.inc)
    handler: logging.Handler
    if style == "text" or (style == "auto" and sys.stderr.isatty()):
        handler, _batch_handler = logging.StreamHandler(stream), None
        handler.setFormatter(TextFormat())
    else:
        handler = _batch_handler = _BatchHandler(stream)
        handler.setFormatter(JsonFormat())
    _root.handlers = [handler]
    _root.propagate = False
    _root.setLevel(level.upper())
    # Pillow warns about damaged files. "always": otherwise Python remembers every warning text that
    # was shown, and each damaged file can bring a new one.
    warnings.filterwarnings("always", module=r"PIL\.")
    warnings.showwarning = log_warning
    # uvicorn's own log: start and stop are logged above; malformed requests go to the access log.
    server = logging.getLogger("uvicorn.error")
    server.handlers = [handler]
    server.propagate = False
    server.setLevel("ERROR")


def log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Log what a library warns of, in one line with the request's id, in place of ``showwarning``.

    A few of each request: one damaged file may give thousands.
    """
    del file, line
    request_record = current.get()
    if request_record is not None:
        request_record.warnings += 1
        if request_record.warnings > MAX_WARNINGS:
            return
    text = " ".join(str(message).split())[:MAX_WARNING]
    source = f"{PurePath(filename).name}:{lineno}"
    request = (
        f" (request {request_record.request_id})"
        if request_record is not None and request_record.request_id
        else ""
    )
    logging.getLogger("gradserve").warning("%s: %s, %s%s", category.__name__, text, source, request)


class RequestLog:
    """Gives each request an id (the client's, if it is plain) and logs its outcome.

    ``observers`` are called for every answer with its scope, status, seconds and record. Neither
    input nor keys are ever logged.
    """

    def __init__(
        self, app: ASGIApp, observers: Sequence[Observe] = (), enabled: bool = True
    ) -> None:
        self.app = app
        self.observers = observers
        self.enabled = enabled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_record = new_record(scope)
        token = current.set(request_record)
        request_id = request_record.request_id.encode()
        status = size = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id))
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientGone:
            status = CLIENT_GONE
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        finally:
            seconds = time.perf_counter() - started
            for observe in self.observers:
                observe(scope, status, seconds, request_record)
            if self.enabled:
                log_answer(scope, status, seconds, size, request_record)
            current.reset(token)


def log_answer(
    scope: Scope, status: int, seconds: float, size: int, request_record: RequestRecord
) -> None:
    """Log one request; the text format shows only the most important members.

    JSON is written at the next ``flush``, or before the next record of another kind.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    client, route = scope.get("client"), getattr(scope.get("route"), "path", None)
    host = client[0] if client else None
    now, method, path = time.time(), scope["method"], scope["path"]
    answer = (now, method, path, host, route, status, seconds, size, request_record)
    if _batch_handler is not None and _root.handlers == [_batch_handler]:
        _batch_handler.note(answer)
    else:
        members = _described(answer)
        access.info("%s", members.pop("message"), extra={"members": members})


def flush() -> None:
    """Write the records of answers that wait to be written together."""
    if _batch_handler is not None:
        _batch_handler.flush()


def new_record(scope: Scope) -> RequestRecord:
    """The id of a request and of the trace that it belongs to, from its headers."""
    request_id = trace = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            trace = value
    # Unique is enough; reseeded in each worker when it is forked.
    return RequestRecord((request_id or b"%016x" % random.getrandbits(64)).decode(), trace.decode())
