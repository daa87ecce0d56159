"""Errors in the form that a protocol's clients expect, wherever the request was refused.

The service's own errors are problem documents (RFC 9457). Clients of a protocol expect its own
members: for each protocol, known by its path prefix, a function converts the problem.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.errors import PROBLEM_TYPE

Document = dict[str, Any]
ErrorFormat = Callable[[int, Document], tuple[int, Document]]


def format_for(path: str, error_formats: Mapping[str, ErrorFormat]) -> ErrorFormat | None:
    """The error format of the protocol under whose prefix a path is."""
    end = path.find("/", 1)
    return error_formats.get(path if end < 0 else path[:end])


class ProtocolErrors:
    """Rewrites the problems of paths under each prefix: status and document in, and out."""

    def __init__(self, app: ASGIApp, error_formats: Mapping[str, ErrorFormat]) -> None:
        self.app = app
        self.error_formats = error_formats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        error_format = format_for(path, self.error_formats)
        if error_format is None:
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def rewrite(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif not start:
                await send(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._answer(error_format, start, bytes(body), send)

        await self.app(scope, receive, rewrite)

    async def _answer(
        self, error_format: ErrorFormat, start: Message, body: bytes, send: Send
    ) -> None:
        if body:  # an answer to HEAD has none
            status, document = error_format(start["status"], orjson.loads(body))
            body = orjson.dumps(document)
            start["status"] = status
            start["headers"] = [
                (name, str(len(body)).encode() if name == b"content-length" else value)
                for name, value in start["headers"]
            ]
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _is_problem(start: Message) -> bool:
    return start["status"] >= 400 and any(
        name == b"content-type" and value == PROBLEM_TYPE.encode()
        for name, value in start["headers"]
    )


def in_words(document: Document) -> str:
    """A problem as one string: its detail, and each error with its place."""
    detail: str = document.get("detail", "")
    items = [_with_place(item) for item in document.get("errors", ())]
    if len(items) == 1 and items[0].endswith(detail):
        return items[0]
    return detail if len(items) < 2 else f"{detail} ({'; '.join(items)})"


def _with_place(item: Document) -> str:
    place = item.get("pointer", "")[2:].replace("/", ".") or item.get("parameter", "")
    return f"{place}: {item['detail']}" if place else item["detail"]
