"""Reading a request body: bounded in size, memory and the time that parsing it takes.

How long it may take to arrive is bounded by the protocol (``service.server.protocol``), which sees
every connection anyway; a timer for each request would cost as much as evaluating a curve.

An endpoint that takes JSON::

    body = await read_json(request, settings.max_json_bytes)
    async with parsing(request, body):
        query = Query.model_validate_json(body)

``read_json`` refuses what has too many elements, by counting them before anything is parsed.
``parsing`` lets one large body be parsed at a time; a small one passes at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from starlette.requests import Request

from service.runtime.cost import Cost, json_cost, json_elements
from service.web.errors import ClientGone, Malformed, TooLarge, WrongType
from service.web.request_record import Stage
from service.web.state import services

# Smaller bodies are not counted, and those with fewer elements don't wait for a turn.
SMALL_BYTES = 16 * 1024
SMALL_ELEMENTS = 20_000
# A body of at most so many bytes that came in one piece: the connection's buffer, which isn't
# counted, has held it already.
UNCOUNTED_BYTES = 64 * 1024


def content_type(request: Request) -> tuple[str, str]:
    """Media type in lower case, and the whole header. Refuses compressed bodies (415)."""
    kind = b""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.lower() not in {b"", b"identity"}:
            raise WrongType(
                "Send the body without Content-Encoding: compressed bodies are not read here"
            )
    header = kind.decode("latin-1")
    return header.partition(";")[0].strip().lower(), header


async def read_json(request: Request, limit: int, numbers: int | None = None) -> bytes | bytearray:
    """A body of type application/json: at most ``limit`` bytes, and elements as the settings
    allow; where ``numbers`` is given, that many commas at most.

    Raises WrongType, TooLarge, Malformed, QueueFull or ClientGone.
    """
    kind, _ = content_type(request)
    if kind != "application/json":
        raise WrongType("Send JSON, with the header Content-Type: application/json")
    body = await read_body(request, limit)
    if not body:
        raise Malformed("The body is empty; send a JSON object")
    check_json(request, body, numbers)
    return body


def check_json(request: Request, body: bytes | bytearray, numbers: int | None = None) -> None:
    """Raise TooLarge if parsing ``body`` would take too long, estimated from its bytes."""
    if len(body) < SMALL_BYTES:
        return
    if numbers is not None and body.count(b",") > numbers:
        raise TooLarge(f"The JSON has over {numbers} numbers; send fewer at a time")
    elements = services(request).settings.max_json_elements
    if json_elements(body) > elements:
        raise TooLarge(
            f"The JSON has over {elements} elements (an array counts as 10 numbers, a name as 100)."
            " Send fewer at a time, or large arrays as binary tensors: /v2/models/{model}/infer"
        )


def parsing(request: Request, body: bytes | bytearray) -> AbstractAsyncContextManager[None]:
    """Parse ``body`` and turn it into arrays inside this block: one large body at a time.

    Raises QueueFull if too many large bodies wait. The turn ends with the block. The memory of the
    parsed document is counted until the request ends; what is made from it is not counted besides.
    """
    elements = 0 if len(body) < SMALL_BYTES else json_elements(body)
    return _AtOnce() if elements < SMALL_ELEMENTS else _in_turn(request, elements)


class _AtOnce(Stage):
    """The block of a small body, as nearly all are: a generator would take as long as parsing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("parse")

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


@asynccontextmanager
async def _in_turn(request: Request, elements: int) -> AsyncIterator[None]:
    resources = services(request).resources
    resources.documents.check()
    cost = json_cost(elements)
    give_up = time.perf_counter() + resources.documents.max_wait
    async with resources.documents.turn(Cost(cost.seconds, 0)):
        await resources.memory.wait_for_request(cost.bytes, max(0.0, give_up - time.perf_counter()))
        began = time.perf_counter()
        with Stage("parse"):
            yield
        # Give the event loop as much time for other requests: large bodies in a row would block it.
        await asyncio.sleep(time.perf_counter() - began)


async def read_body(request: Request, limit: int) -> bytes | bytearray:
    """The whole body, at most ``limit`` bytes. Its memory is counted until the request ends.

    Raises TooLarge (before reading, where Content-Length says so), QueueFull if all bodies together
    are too large, or ClientGone.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
    with Stage("read"):
        return await _read_all(request, limit)


async def _read_all(request: Request, limit: int) -> bytes | bytearray:
    piece, more = await _receive(request)
    if not more:
        # The whole body in one message, as for nearly every request but photos.
        if len(piece) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
        if len(piece) > UNCOUNTED_BYTES:
            services(request).resources.bodies.for_request().take(len(piece))
        return piece
    body = bytearray()
    held = services(request).resources.bodies.for_request()
    while True:
        if len(body) + len(piece) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes")
        held.take(len(piece))
        body += piece
        if not more:
            return body
        piece = b""  # not kept twice while the next one is on its way
        piece, more = await _receive(request)


async def _receive(request: Request) -> tuple[bytes, bool]:
    """A piece of the body, and whether more is to come."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
