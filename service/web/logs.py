"""A request id on every answer, and one record in the log for every request."""

import asyncio
import logging
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.errors import ClientGone
from service.web.facts import Facts, current
from service.web.stderr import DroppingStream

access = logging.getLogger("gradserve.access")
Observe = Callable[[Scope, int, float, Facts], None]
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# https://www.w3.org/TR/trace-context/#traceparent-header; all zeros are not allowed.
_TRACEPARENT = re.compile(
    rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?"
)
MAX_WARNINGS, MAX_WARNING = 3, 300  # logged of one request; characters of each
MAX_PATH = 200  # characters of a path in the log
CLIENT_GONE = 499  # nginx's status for it; nothing is sent


class TextFormat(logging.Formatter):
    """``time level message``, for people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record, with the id of the request in which a fault happened."""
        text = super().format(record)
        facts = current.get()
        if record.exc_info and facts is not None:
            text = f"{text}\n(request {facts.request_id})"
        return text


class JsonFormat(logging.Formatter):
    """One JSON object a record, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback is a member of it."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        facts = current.get()
        if facts is not None and facts.request_id:
            document["request_id"] = facts.request_id
        document |= getattr(record, "members", {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


def configure(level: str, style: str = "auto") -> None:
    """Send the service's log to standard error: ``style`` text, json, or auto.

    ``auto`` writes JSON unless standard error is a terminal.
    """
    handler = logging.StreamHandler(DroppingStream(sys.stderr))
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormat() if text else JsonFormat())
    root = logging.getLogger("gradserve")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(level.upper())
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
    facts = current.get()
    if facts is not None:
        facts.warnings += 1
        if facts.warnings > MAX_WARNINGS:
            return
    text = " ".join(str(message).split())[:MAX_WARNING]
    source = f"{PurePath(filename).name}:{lineno}"
    request = f" (request {facts.request_id})" if facts is not None and facts.request_id else ""
    logging.getLogger("gradserve").warning("%s: %s, %s%s", category.__name__, text, source, request)


class RequestLog:
    """Gives each request an id (the client's, if it is plain) and logs its outcome.

    ``observers`` are called for every answer with its scope, status, seconds and facts. Neither
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
        facts = read_facts(scope)
        token = current.set(facts)
        request_id = facts.request_id.encode()
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
                observe(scope, status, seconds, facts)
            if self.enabled:
                log_answer(scope, status, seconds, size, facts)
            current.reset(token)


def log_answer(scope: Scope, status: int, seconds: float, size: int, facts: Facts) -> None:
    """Write the record of one request; the text format shows only the most important members."""
    path = scope["path"].encode("unicode_escape").decode()[:MAX_PATH]
    client = scope.get("client")
    members = {
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": path,
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "ms": round(seconds * 1000, 2),
        "bytes": size,
        "model": facts.model or None,
        "version": facts.version or None,
        "traceparent": facts.trace or None,
        "stages_ms": {stage: round(s * 1000, 3) for stage, s in facts.seconds.items()} or None,
    }
    access.info(
        "%s %s %d %.1f ms %s",
        scope["method"],
        path,
        status,
        seconds * 1000,
        facts.request_id,
        extra={"members": {name: value for name, value in members.items() if value is not None}},
    )


def read_facts(scope: Scope) -> Facts:
    """The id of a request and of the trace that it belongs to, from its headers."""
    request_id = trace = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            trace = value
    # Unique is enough; reseeded in each worker when it is forked.
    return Facts((request_id or b"%016x" % random.getrandbits(64)).decode(), trace.decode())
