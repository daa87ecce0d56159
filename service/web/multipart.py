"""The files of a multipart/form-data body (RFC 7578) that is already whole in memory.

Python-multipart parses a body as it streams in, byte class by byte class, into temporary files.
Uploads here are bounded and small, so finding the boundaries in memory is enough, and copies
nothing: the files are views of the body.
"""

import re
from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from service.web.errors import Malformed

MAX_PARTS = 256
MAX_HEADER_BYTES = 8 * 1024
MAX_BOUNDARY = 70  # RFC 2046, section 5.1.1
# Options of a header: parsing takes a microsecond for each, and a form may have 256 headers.
MAX_OPTIONS = 16

# What nearly every client writes; anything else goes to the full parser of headers.
_PLAIN = re.compile(
    rb'content-disposition: form-data; name="([a-z]{1,32})"(?:; filename="[^"\\\r\n]*")?(?:\r\n|$)',
    re.I,
)
_DISPOSITION = re.compile(rb"^content-disposition[ \t]*:[ \t]*([^\r\n]*)", re.I | re.M)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class Part(NamedTuple):
    """One field of a form."""

    name: str
    content: memoryview


def parse(body: bytes | bytearray, content_type: str) -> list[Part]:
    """The parts of ``body``, in order. Raises Malformed, saying what is wrong with it."""
    delimiter = b"\r\n--" + _boundary(content_type)
    view = memoryview(body)
    if body.startswith(delimiter[2:]):
        position = len(delimiter) - 2
    else:
        # Text before the first boundary is allowed, and ignored.
        start = body.find(delimiter)
        if start < 0:
            raise Malformed("The multipart body does not contain its boundary")
        position = start + len(delimiter)
    parts: list[Part] = []
    while not body.startswith(b"--", position):
        line_end = body.find(b"\r\n", position, position + MAX_HEADER_BYTES)
        if line_end < 0 or body[position:line_end].strip(b" \t"):
            raise Malformed("A multipart boundary is not followed by a line end")
        header_end = body.find(b"\r\n\r\n", line_end, line_end + MAX_HEADER_BYTES)
        if header_end < 0:
            raise Malformed(f"The headers of a part do not end within {MAX_HEADER_BYTES} bytes")
        end = body.find(delimiter, header_end + 2)
        if end < 0:
            raise Malformed("The multipart body ends before its last boundary")
        if len(parts) == MAX_PARTS:
            raise Malformed(f"The form has more than {MAX_PARTS} parts")
        name = _name(bytes(body[line_end + 2 : header_end]))
        parts.append(Part(name, view[min(header_end + 4, end) : end]))
        position = end + len(delimiter)
    return parts


def _boundary(content_type: str) -> bytes:
    _, options = _options(content_type.encode("latin-1"))
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise Malformed(
            "The Content-Type has no usable boundary; let your HTTP client write that header"
        )
    return boundary.encode("ascii")


def _name(headers: bytes) -> str:
    plain = _PLAIN.match(headers)
    if plain is not None:
        return plain[1].decode()
    found = _DISPOSITION.search(headers)
    if found is None:
        raise Malformed("A part of the form has no Content-Disposition")
    kind, options = _options(found[1])
    if kind != b"form-data":
        raise Malformed("A part's Content-Disposition is not form-data")
    return options.get(b"name", b"").decode("utf-8", "replace")


def _options(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A header's value and its options. Raises Malformed if there are over ``MAX_OPTIONS``."""
    if header.count(b";") > MAX_OPTIONS:
        raise Malformed(f"A header of the form has more than {MAX_OPTIONS} options")
    return parse_options_header(header)
