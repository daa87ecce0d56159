"""Reading a request body: bounded in size, with one copy at most.

Its time is bounded by the protocol (``service.server.protocol``), which sees every connection
anyway; a timer for each request would cost as much as evaluating a curve.
"""

from starlette.requests import Request
from starlette.types import Message

from service.web.errors import Busy, ClientGone, Malformed, TooLarge, WrongType
from service.web.state import Buffers, services


def content_type(request: Request) -> tuple[str, str]:
    """Media type in lower case, and the whole header. Refuses compressed bodies (415)."""
    kind = encoding = b""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding":
            encoding = value
    if encoding and encoding.lower() != b"identity":
        raise WrongType("Send the body without Content-Encoding: compressed bodies are not read")
    header = kind.decode("latin-1")
    return header.partition(";")[0].strip().lower(), header


async def read_json(request: Request, limit: int) -> bytes | bytearray:
    """A body of type application/json. Raises WrongType, TooLarge, Malformed."""
    kind, _ = content_type(request)
    if kind != "application/json":
        raise WrongType("Send JSON, with the header Content-Type: application/json")
    body = await read_body(request, limit)
    if not body:
        raise Malformed("The body is empty; send a JSON object")
    return body


async def read_body(request: Request, limit: int) -> bytes | bytearray:
    """The whole body, at most ``limit`` bytes.

    Raises TooLarge (before reading, where Content-Length says so), Busy if all uploads together are
    too large, or ClientGone.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
    message = await _receive(request)
    if not message.get("more_body", False):
        # All there is, as with nearly every request that is not a photo.
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
        return whole
    return await _collect(request, message, limit, services(request).buffers)


async def _collect(request: Request, message: Message, limit: int, buffers: Buffers) -> bytearray:
    """The body from its first message on, within what all bodies together may take."""
    body = bytearray()
    try:
        while True:
            chunk = message.get("body", b"")
            body += chunk
            buffers.used += len(chunk)
            if len(body) > limit:
                raise TooLarge(f"The body is over the limit of {limit} bytes")
            if buffers.used > buffers.limit:
                raise Busy("Too much is being uploaded at this moment; try again shortly")
            if not message.get("more_body", False):
                return body
            message = await _receive(request)
    finally:
        buffers.used -= len(body)


async def _receive(request: Request) -> Message:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message
