"""Reading a request body: bounded in size, with one copy at most.

Its time is bounded by the protocol (``service.protocol``), which sees every connection anyway; a
timer for each request would cost as much as evaluating a curve.
"""

from starlette.requests import Request

from service.errors import ClientGone, Malformed, TooLarge, WrongType


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


async def read_json(request: Request, limit: int) -> bytes:
    """A body of type application/json. Raises WrongType, TooLarge, Malformed."""
    kind, _ = content_type(request)
    if kind != "application/json":
        raise WrongType("Send JSON, with the header Content-Type: application/json")
    body = await read_body(request, limit)
    if not body:
        raise Malformed("The body is empty; send a JSON object")
    return body


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes.

    Raises TooLarge (before reading, where Content-Length says so), or ClientGone.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
        if not message.get("more_body", False):
            return chunk if not chunks else b"".join((*chunks, chunk))
        chunks.append(chunk)
