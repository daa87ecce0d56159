"""Compressed bodies: unpacked in a thread, one at a time, never past a limit."""

import zlib

from starlette.requests import Request

from service.runtime.cost import Cost
from service.web.body import UNCOUNTED_BYTES, read_body
from service.web.errors import Malformed, TooLarge, WrongType
from service.web.state import services

# As it came, whatever it unpacks to: it may consist of empty blocks, each with its own tables.
SECONDS_OF_BYTE = 1e-7


async def read_unpacked(request: Request, limit: int) -> bytes | bytearray:
    """The whole body, at most ``limit`` bytes as it came and as it unpacks.

    Raises TooLarge, Malformed (damaged, or not whole), WrongType (another Content-Encoding than
    gzip and deflate), QueueFull or ClientGone.
    """
    # Given twice it is a list, of what was done one after the other (RFC 9110, 8.4).
    encoding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    encoding = "gzip" if encoding == "x-gzip" else encoding  # the same (RFC 9110, 8.4.1.3)
    if encoding not in {"", "identity", "gzip", "deflate"}:
        raise WrongType("Content-Encoding may be gzip or deflate; no other is read here")
    body = await read_body(request, limit)
    if encoding in {"", "identity"} or not body:
        return body
    return await _unpack(request, body, encoding, limit)


async def _unpack(request: Request, packed: bytes | bytearray, encoding: str, limit: int) -> bytes:
    resources = services(request).resources
    resources.unpacking.check()
    cost = Cost(len(packed) * SECONDS_OF_BYTE, limit)
    found = await resources.unpacking.in_thread(cost, _unpacked, packed, encoding, limit)
    if len(found) > UNCOUNTED_BYTES:
        resources.bodies.for_request().take(len(found))
    return found


def _unpacked(packed: bytes | bytearray, encoding: str, limit: int) -> bytes:
    # deflate is zlib's format by RFC 9110; some clients send it without zlib's header.
    raw = encoding == "deflate" and (packed[0] & 0x0F != 8 or len(packed) < 2)
    unpacker = zlib.decompressobj(31 if encoding == "gzip" else -15 if raw else 15)
    try:
        found = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise Malformed(f"The body is not {encoding}, or damaged") from None
    if len(found) > limit:
        raise TooLarge(f"The body unpacks to more than the limit of {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed(f"The body is not {encoding} from its beginning to its end")
    return found
