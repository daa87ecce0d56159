"""Errors in the form that a protocol's clients expect, wherever the request was refused.

The service's own errors are problem documents (RFC 9457). Clients of a protocol expect its own
members: for each protocol, known by its path prefix, a face converts the problem.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.errors import PROBLEM_TYPE

Document = dict[str, Any]
Face = Callable[[int, Document], tuple[int, Document]]


def face_of(path: str, faces: Mapping[str, Face]) -> Face | None:
    """The face under whose prefix a path is."""
    end = path.find("/", 1)
    return faces.get(path if end < 0 else path[:end])


class FaceErrors:
    """Rewrites the problems of paths under each of ``faces``: status and document in, and out."""

    def __init__(self, app: ASGIApp, faces: Mapping[str, Face]) -> None:
        self.app = app
        self.faces = faces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        face = face_of(path, self.faces)
        if face is None:
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
                    await self._answer(face, start, bytes(body), send)

        await self.app(scope, receive, rewrite)

    async def _answer(self, face: Face, start: Message, body: bytes, send: Send) -> None:
        if body:  # an answer to HEAD has none
            status, document = face(start["status"], orjson.loads(body))
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
    return detail if len(items) < 2 else f"{detail} ({'; '.join(items)})"


def _with_place(item: Document) -> str:
    place = item.get("pointer", "")[2:].replace("/", ".") or item.get("parameter", "")
    return f"{place}: {item['detail']}" if place else item["detail"]
