"""Refusals that are written before a request reaches the application, or before it is whole.

They have the headers of every other answer (security, request id, CORS), and are counted and logged
like it. Even an incomplete or malformed head is searched for the client's request id.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping

import orjson
from starlette.responses import Response

from service.web.errors import PROBLEM_TYPE, problem_response
from service.web.logs import REQUEST_ID, access, log_answer
from service.web.metrics import OTHER, REASONS, REFUSALS, REQUESTS
from service.web.protocol_errors import ErrorFormat, format_for
from service.web.request_record import RequestRecord
from service.web.security import ALWAYS

_ID = re.compile(rb"\r\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
_LINE = re.compile(rb"([A-Z-]{1,16}) ([!-~]{1,2000}) ")
# So many refusals a second are logged one by one, the rest as a number: under heavy overload each
# record would cost more than its refusal.
LOGGED_EACH_SECOND = 100


class Refusals:
    """Writes the refusals of one worker.

    ``paths`` are those that metrics name; ``error_formats`` are how protocols write their errors,
    by the prefix of their paths.
    """

    def __init__(
        self,
        paths: frozenset[str],
        cors_origins: tuple[str, ...] = (),
        log: bool = True,
        error_formats: Mapping[str, ErrorFormat] | None = None,
    ) -> None:
        self._paths = paths
        self._error_formats = error_formats or {}
        self._origins = frozenset(origin.encode() for origin in cors_origins)
        self._log = log
        self._second = 0
        self._logged = 0
        self._unlogged: Counter[int] = Counter()

    def headers(self, head: bytes) -> tuple[bytes, bytes]:
        """The request id, and the header lines that depend on the request's head."""
        found = _ID.search(head)
        if found is not None and REQUEST_ID.fullmatch(found[1]):
            request_id = found[1]
        else:
            request_id = b"%016x" % random.getrandbits(64)
        lines = b"x-request-id: %s\r\n" % request_id
        if self._origins:
            lines += self._cors(head)
        return request_id, lines

    def response(self, status: int, detail: str, head: bytes) -> Response:
        """The answer, in the form for the path if the head has one."""
        response = problem_response(status, detail)
        error_format = format_for(self._request(head)[1], self._error_formats)
        if error_format is None:
            return response
        _, document = error_format(status, orjson.loads(response.body))
        return Response(orjson.dumps(document), status, media_type=PROBLEM_TYPE)

    def _cors(self, head: bytes) -> bytes:
        found = _ORIGIN.search(head)
        if found is None or not {found[1], b"*"} & self._origins:
            return b""
        every = b"*" in self._origins
        allowed = b"*" if every else found[1] + b"\r\nvary: Origin"
        return (
            b"access-control-allow-origin: %s\r\naccess-control-expose-headers: x-request-id\r\n"
            % allowed
        )

    def record(
        self, status: int, head: bytes, request_id: bytes, size: int, client: str | None
    ) -> None:
        """Count one refusal, and log it."""
        method, path = self._request(head)
        self.count(status, method, path)
        self.log(status, method, path, request_id, size, client)

    def count(self, status: int, method: str, path: str, times: int = 1) -> None:
        """Count refusals for the metrics."""
        handler = path if path in self._paths else OTHER
        REQUESTS.labels(handler, method, status, "", "").inc(times)
        REFUSALS.labels(REASONS[status]).inc(times)

    def log(
        self,
        status: int,
        method: str,
        path: str,
        request_id: bytes,
        size: int,
        client: str | None,
        now: float = 0.0,
    ) -> None:
        """Write its record, unless there were many within this second of the event loop."""
        if not self._log:
            return
        if int(now) != self._second:
            self._second, self._logged = int(now), 0
            self.flush()
        if now and self._logged >= LOGGED_EACH_SECOND:
            self._unlogged[status] += 1
            return
        self._logged += 1
        scope = {"method": method, "path": path, "client": (client, 0) if client else None}
        log_answer(scope, status, 0.0, size, RequestRecord(request_id.decode()))

    def flush(self) -> None:
        """Log how many refusals have no record of their own."""
        for status, number in self._unlogged.items():
            access.info("%d more requests were refused with %d within a second", number, status)
        self._unlogged.clear()

    def _request(self, head: bytes) -> tuple[str, str]:
        """Method and path as far as the head has them."""
        found = _LINE.match(head)
        if found is None:
            return "", ""
        return found[1].decode(), found[2].partition(b"?")[0].decode()


def static_lines(response: Response) -> bytes:
    """The header lines of a response, with those that every answer carries."""
    return b"".join(
        name + b": " + value + b"\r\n" for name, value in (*response.raw_headers, *ALWAYS)
    )
