"""Raw bytes to the server and back, and the rule that every answer keeps."""

import http.client
import json
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from tests.server_process import ServerProcess

# Put wherever input may hold text; no answer may repeat it.
CANARY = "zq7canary"
MAX_ERROR_BYTES = 4096
# A hang is an answer that takes longer: far more than anything takes, even on a loaded machine.
HANG_SECONDS = 20


@dataclass(frozen=True)
class Answer:
    """One answer, or ``status`` 0 where the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def exchange(port: int, sent: bytes | Iterable[bytes], method: str = "POST") -> Answer:
    """The first answer to raw bytes, sent in pieces if they come so. One to HEAD has no body.

    Raises TimeoutError if the server neither answers nor closes within ``HANG_SECONDS``.
    """
    pieces = [sent] if isinstance(sent, bytes) else sent
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The server may answer, and close, before it has been sent everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                client.sendall(piece)
        response = http.client.HTTPResponse(client, method=method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            return Answer(0, {}, b"", time.monotonic() - started)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body, time.monotonic() - started)


def post(
    path: str,
    body: bytes,
    kind: str = "application/json",
    *more: str,
    length: str | None = None,
) -> bytes:
    """A POST as raw bytes; ``length`` is a Content-Length other than the true one."""
    length = str(len(body)) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *more]
    lines += [f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunked(path: str, kind: str, chunks: Iterable[bytes]) -> Iterable[bytes]:
    """A POST in chunks, one at a time, ended properly."""
    yield (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def check_rule(answer: Answer, *secrets: str) -> None:
    """Never a 5xx; an error is a short problem document that repeats nothing of the input."""
    assert answer.status == 0 or 200 <= answer.status < 500, (answer.status, answer.body)
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.body) < MAX_ERROR_BYTES
        document = json.loads(answer.body)
        assert document["status"] == answer.status
        assert document["title"]
        assert document["detail"]
        assert len(document.get("errors", [])) <= 10
        text = answer.body.decode()
        head = str(answer.headers)
        for secret in (CANARY, *secrets):
            assert secret not in text
            assert secret not in head


def check_good(server: ServerProcess) -> None:
    """The next good request succeeds: f(2) = 4, and a red picture is red."""
    status, answer = server.post("/predict", {"x": 2})
    assert (status, answer["y"]) == (200, [4.0])
