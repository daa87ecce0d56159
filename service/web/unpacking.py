"""Compressed bodies: unpacked piece by piece, never past a limit."""

import asyncio
import zlib

from starlette.requests import Request

from service.web.body import UNCOUNTED_BYTES, read_body
from service.web.errors import Malformed, TooLarge, WrongType
from service.web.state import services

PIECE = 1024 * 1024  # unpacked in one go: 5 ms


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


async def _unpack(
    request: Request, packed: bytes | bytearray, encoding: str, limit: int
) -> bytearray:
    # deflate is zlib's format by RFC 9110; some clients send it without zlib's header.
    raw = encoding == "deflate" and (packed[0] & 0x0F != 8 or len(packed) < 2)
    unpacker = zlib.decompressobj(31 if encoding == "gzip" else -15 if raw else 15)
    held = services(request).resources.bodies.for_request()
    found = bytearray()
    rest: bytes | bytearray = packed
    while rest and not unpacker.eof:
        try:
            piece = unpacker.decompress(rest, PIECE)
        except zlib.error:
            raise Malformed(f"The body is not {encoding}, or damaged") from None
        rest = unpacker.unconsumed_tail
        if len(found) + len(piece) > limit:
            raise TooLarge(f"The body unpacks to more than the limit of {limit} bytes")
        if len(found) + len(piece) > UNCOUNTED_BYTES:
            held.take(len(piece))
        found += piece
        if rest:
            await asyncio.sleep(0)
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed(f"The body is not {encoding} from its beginning to its end")
    return found
