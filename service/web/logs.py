"""A request id on every answer, and one line of log for every request."""

import asyncio
import logging
import random
import re
import sys
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.errors import ClientGone

access = logging.getLogger("gradserve.access")
Observe = Callable[[Scope, int, float], None]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def configure(level: str) -> None:
    """Send the service's log to standard error, as ``time level message``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("gradserve")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(level.upper())
    # uvicorn's own: that it starts and stops is said above already, and bad requests are no news.
    server = logging.getLogger("uvicorn.error")
    server.handlers = [handler]
    server.propagate = False
    server.setLevel("ERROR")


class RequestLog:
    """Gives each request an id (the client's, if it is plain) and logs method, path and time.

    ``observe`` is told of every answer as well: its scope, status and seconds.
    """

    def __init__(self, app: ASGIApp, observe: Observe, enabled: bool = True) -> None:
        self.app = app
        self.observe = observe
        self.enabled = enabled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientGone:
            status = 499  # nginx's number for it; nothing is sent, as nobody listens
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            seconds = time.perf_counter() - started
            self.observe(scope, status, seconds)
            if self.enabled:
                access.info(
                    "%s %s %d %.1f ms %s",
                    scope["method"],
                    scope["path"].encode("unicode_escape").decode()[:200],
                    status,
                    seconds * 1000,
                    request_id.decode(),
                )


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    # Unique is enough; reseeded in each worker when it is forked.
    return b"%016x" % random.getrandbits(64)
