"""Where a request begins and ends, decided before it is parsed (RFC 9112).

A proxy in front and the server behind it must agree about that to the byte, or one client's bytes
become another's request (request smuggling). The parser takes some forms that others read
differently; so a head is checked here first, and whatever RFC 9112 doesn't allow is refused.
"""

import re

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 128  # each takes 130 bytes more than its own; Apache takes 100
CHUNKED = -1  # in place of a length: the body comes in chunks, and the last one says so

NO_REQUEST_LINE = "The request should begin with a method, a target and HTTP/1.1, one space between"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"+) ([!-~]+) ([A-Z]+)/([0-9]\.[0-9])\r\n")
_BEGINNING = re.compile(_TOKEN + rb"{1,32}(?: |\Z)")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^#]*)", re.IGNORECASE)
_HOST = re.compile(
    rb"(?:[!$%&'()*+,;=._~0-9A-Za-z-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"  # RFC 3986, 3.2.2
)
_FIELD = rb"\r\n%s:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)"
_HOSTS = re.compile(_FIELD % b"host")
_LENGTHS = re.compile(_FIELD % b"content-length")
_CODINGS = re.compile(_FIELD % b"transfer-encoding")
_UPGRADES = re.compile(_FIELD % b"upgrade", re.IGNORECASE)
_HOST_LINE = re.compile(_FIELD % b"host", re.IGNORECASE)


class Malformed(ValueError):
    """Not a request, or one that could be read in two ways."""


class HeadTooLarge(Malformed):
    """Of too many bytes or fields."""


def check_beginning(data: bytes | bytearray, start: int) -> None:
    """Raise Malformed if what is there of a head, from ``start`` on, can't become one."""
    if data.find(b"\n", start) >= 0:
        if REQUEST_LINE.match(data, start) is None:
            raise Malformed(NO_REQUEST_LINE)
    elif _BEGINNING.match(data, start) is None:
        raise Malformed("The request should begin with a method")


def read_head(head: bytes) -> tuple[bytes, int]:
    """A whole head as the parser is to see it, and the length of the body, or CHUNKED.

    An offer to upgrade to another protocol is left out, which is how to decline it (RFC 9110,
    7.8). Of an absolute target, the host takes the place of the Host field (RFC 9112, 3.2.2).
    Raises Malformed, or HeadTooLarge for over ``MAX_FIELDS`` fields.
    """
    if head.count(b"\n") > MAX_FIELDS + 2:
        raise HeadTooLarge(f"The head of the request has over {MAX_FIELDS} fields")
    line = REQUEST_LINE.match(head)
    if line is None:
        raise Malformed(NO_REQUEST_LINE)
    method, target, protocol, version = line.groups()
    if protocol != b"HTTP" or version not in {b"1.0", b"1.1"}:
        raise Malformed("The version of HTTP should be 1.0 or 1.1")
    if method == b"CONNECT":
        raise Malformed("CONNECT is for proxies, and this is none")
    lower = head.lower()
    if b"\r\n " in lower or b"\r\n\t" in lower:
        raise Malformed("A field of the head should be on one line")
    hosts = _HOSTS.findall(lower)
    if len(hosts) != 1 and (hosts or version == b"1.1"):
        raise Malformed("The head should have one Host field")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise Malformed("The Host field should be a name, and a port if need be")
    length = _body_length(lower, version)
    if b"\r\nupgrade:" in lower:
        head = _UPGRADES.sub(b"", head)
    if not target.startswith(b"/"):
        head = _origin_form(head, method, target, version)
    return head, length


def _body_length(lower: bytes, version: bytes) -> int:
    lengths = _LENGTHS.findall(lower)
    codings = _CODINGS.findall(lower) if b"transfer-encoding" in lower else []
    if codings:
        if codings != [b"chunked"] or version != b"1.1":
            raise Malformed("Transfer-Encoding should be chunked, in HTTP/1.1, or be left out")
        if lengths:
            raise Malformed("A body has a Content-Length or a Transfer-Encoding, not both")
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 19:
        raise Malformed("Content-Length should be one number")
    return int(lengths[0])


def _origin_form(head: bytes, method: bytes, target: bytes, version: bytes) -> bytes:
    """The same head with the path as its target and the target's host in its Host field."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or _HOST.fullmatch(absolute[1]) is None:
        raise Malformed("The target should be a path, or an http:// address")
    path = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    fields = _HOST_LINE.sub(b"", head[head.index(b"\r\n") :])
    return b"%s %s HTTP/%s\r\nHost: %s%s" % (method, path, version, absolute[1], fields)
