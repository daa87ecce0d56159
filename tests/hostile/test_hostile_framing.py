"""Requests framed as none should be: forms, lengths, chunks, heads, ranges."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.hostile.wire import CANARY, HANG_SECONDS, check_good, check_rule, chunked, exchange, post
from tests.server_process import ServerProcess
from tests.tiny_artifacts import png

RED = png((250, 5, 5))
FORM = "multipart/form-data; boundary=b"
MIB = 1024 * 1024


def part(content: bytes = RED, *headers: bytes, name: bytes = b"file") -> bytes:
    lines = [b'Content-Disposition: form-data; name="' + name + b'"', *headers, b"", content]
    return b"--b\r\n" + b"\r\n".join(lines) + b"\r\n"


def label(body: bytes) -> str:
    return json.loads(body)["results"][0]["top"][0]["label"]


FORMS = {
    "no boundary": ("multipart/form-data", part() + b"--b--"),
    "an empty boundary": ("multipart/form-data; boundary=", part() + b"--b--"),
    "a boundary of 71 characters": ("multipart/form-data; boundary=" + "b" * 71, part() + b"--b--"),
    "a boundary of 30 KB": ("multipart/form-data; boundary=" + "b" * 30_000, part() + b"--b--"),
    "a boundary of quotes": ('multipart/form-data; boundary="""', part() + b"--b--"),
    "a boundary that ends in space": ('multipart/form-data; boundary="b "', part() + b"--b--"),
    "a boundary beyond ASCII": ("multipart/form-data; boundary=b\xe9", part() + b"--b--"),
    "ten thousand parameters": ("multipart/form-data" + "; a=b" * 10_000, part() + b"--b--"),
    "another boundary": (FORM, part().replace(b"--b\r", b"--c\r") + b"--c--"),
    "only a boundary": (FORM, b"--b"),
    "no last boundary": (FORM, part()),
    "nothing": (FORM, b""),
    "no parts": (FORM, b"--b--"),
    "another field": (FORM, part(name=CANARY.encode()) + b"--b--"),
    "ten thousand parts": (FORM, part(b"x") * 10_000 + b"--b--"),
    "ten thousand empty parts": (FORM, b"--b\r\n" * 10_000 + b"--b--"),
    "ten thousand headers of a part": (FORM, part(RED, *[b"A: b"] * 10_000) + b"--b--"),
    "a header of a part of 1 MB": (FORM, part(RED, b"A: " + b"b" * MIB) + b"--b--"),
    "headers that do not end": (FORM, b"--b\r\nA: b" + b"\r\nA: b" * 100_000),
    "no disposition": (FORM, b"--b\r\nContent-Type: image/png\r\n\r\n" + RED + b"\r\n--b--"),
    "a preamble and no form": (FORM, CANARY.encode() * 100_000),
    "boundaries in a row": (FORM, b"\r\n--b" * 100_000),
    "a form in a form": (FORM, part(part() + b"--b--") + b"--b--"),
}


@pytest.mark.parametrize("path", ["/classify", "/explain"])
@pytest.mark.parametrize("case", FORMS)
def test_forms(server: ServerProcess, path: str, case: str) -> None:
    kind, body = FORMS[case]
    answer = exchange(server.port, post(path, body, kind))
    check_rule(answer)
    # Heads over a limit are 431; what lies in a part of a form is an image or it isn't (415).
    assert answer.status in {400, 415, 431}
    check_good(server)


def test_a_preamble_without_end_is_cut_off(server: ServerProcess) -> None:
    endless = (b"preamble " * 8192 for _ in range(1000))
    answer = exchange(server.port, chunked("/classify", FORM, endless))
    check_rule(answer)
    assert answer.status in {0, 413}
    check_good(server)


@pytest.mark.parametrize("path", ["/predict", "/classify", "/w10-gradient"])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(
    server: ServerProcess, path: str
) -> None:
    kind = "image/png" if path == "/classify" else "application/json"
    for length in (17 * MIB, 10**15, 2**63 - 1):
        answer = exchange(server.port, post(path, b"", kind, length=str(length)))
        check_rule(answer)
        assert answer.status == 413
        assert answer.seconds < 2  # the time that a body may take


def one_byte_at_a_time(body: bytes) -> Iterator[bytes]:
    return (body[i : i + 1] for i in range(len(body)))


def test_chunks_of_one_byte(server: ServerProcess) -> None:
    answer = exchange(server.port, chunked("/classify", "image/png", one_byte_at_a_time(RED)))
    assert (answer.status, label(answer.body)) == (200, "red")
    form = part() + b"--b--"
    answer = exchange(server.port, chunked("/classify", FORM, one_byte_at_a_time(form)))
    assert (answer.status, label(answer.body)) == (200, "red")
    # Two hundred thousand of them in one go cost the server a turn each, and no more.
    many = b"".join(chunked("/predict", "application/json", [b" "] * 200_000 + [b'{"x": 2}']))
    answer = exchange(server.port, many)
    assert (answer.status, json.loads(answer.body)["y"]) == (200, [4.0])


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


JSON = "Content-Type: application/json"
LINE = "POST /predict HTTP/1.1"
HOST = "Host: localhost"
# Every one could be read as two requests, or as another, by someone between client and server.
AMBIGUOUS = {
    "a negative length": head(LINE, HOST, JSON, "Content-Length: -1") + b'{"x":1}',
    "a length with a sign": head(LINE, HOST, JSON, "Content-Length: +7") + b'{"x":1}',
    "a length in hexadecimal": head(LINE, HOST, JSON, "Content-Length: 0x7") + b'{"x":1}',
    "a length over any integer": head(LINE, HOST, JSON, "Content-Length: " + "9" * 40),
    "a length that is text": head(LINE, HOST, JSON, f"Content-Length: {CANARY}"),
    "two lengths": head(LINE, HOST, JSON, "Content-Length: 7", "Content-Length: 8") + b'{"x":1}',
    "two lengths in one": head(LINE, HOST, JSON, "Content-Length: 7, 8") + b'{"x":1}',
    "a length and chunks": head(
        LINE, HOST, JSON, "Content-Length: 7", "Transfer-Encoding: chunked"
    ) + b"7\r\n" + b'{"x":1}' + b"\r\n0\r\n\r\n",
    "chunks by another name": head(LINE, HOST, JSON, "Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "a size that is text": head(LINE, HOST, JSON, "Transfer-Encoding: chunked") + b"zz\r\n",
    "a size over any integer": head(LINE, HOST, JSON, "Transfer-Encoding: chunked")
    + b"f" * 40 + b"\r\n",
    "a negative size": head(LINE, HOST, JSON, "Transfer-Encoding: chunked") + b"-1\r\n",
    "a chunk without its end": head(LINE, HOST, JSON, "Transfer-Encoding: chunked")
    + b'7\r\n{"x":1}XX0\r\n\r\n',
    "a NUL in a header": head(LINE, HOST, "X: a\x00b"),
    "a bare carriage return": head(LINE, HOST, "X: a\rY: b"),
    "space before the colon": head(LINE, HOST, "Content-Length : 7") + b'{"x":1}',
    "a header without a colon": head(LINE, HOST, CANARY),
    "a method that isn't": head(f"{CANARY.upper()} / HTTP/1.1", HOST),
    "a version that isn't": head("GET /health/live HTTP/7.3", HOST),
    "space in the path": head("GET /health/live /x HTTP/1.1", HOST),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "noise": bytes(range(256)) * 4,
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(server: ServerProcess, case: str) -> None:
    answer = exchange(server.port, AMBIGUOUS[case])
    check_rule(answer)
    assert answer.status in {0, 400, 413, 415}
    check_good(server)


def test_more_body_than_its_length_is_not_taken_for_a_request(server: ServerProcess) -> None:
    for smuggled in (b"POST /predict HTTP/9\r\n\r\n", b'{"x": 3}', b"X: " + b"y" * 200_000):
        answer = exchange(server.port, post("/predict", b'{"x": 2}' + smuggled, length="8"))
        assert (answer.status, json.loads(answer.body)["y"]) == (200, [4.0])
    check_good(server)


def test_rubbish_behind_requests_does_not_take_their_answers(server: ServerProcess) -> None:
    good = post("/predict", b'{"x": 2}')
    broken = head(LINE, HOST, JSON, "Transfer-Encoding: chunked") + b"zz\r\n"
    for last in (b"\x00\x01", broken):
        with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as client:
            client.sendall(good * 3 + last)
            received = b""
            while chunk := client.recv(65536):
                received += chunk
        assert received.count(b"HTTP/1.1 200 OK") == 3
        assert received.count(b'"y":[4.0]') == 3
        assert received.count(b"HTTP/1.1 ") - 3 == received.count(b"HTTP/1.1 4") <= 1
    check_good(server)


def test_less_body_than_its_length_is_waited_for_and_given_up(server: ServerProcess) -> None:
    answer = exchange(server.port, post("/predict", b'{"x": 2}', length="9"))
    check_rule(answer)
    assert answer.status == 408
    check_good(server)


HEADS = {
    "fifty thousand headers": head("GET /health/live HTTP/1.1", HOST, *["X: yyyyyy"] * 50_000),
    "a header of 1 MB": head("GET /health/live HTTP/1.1", HOST, "X: " + "y" * MIB),
    "a name of 1 MB": head("GET /health/live HTTP/1.1", HOST, "y" * MIB + ": x"),
    "a path of 1 MB": head("GET /" + CANARY * (MIB // 9) + " HTTP/1.1", HOST),
    "a query of 1 MB": head("GET /health/live?" + CANARY * (MIB // 9) + " HTTP/1.1", HOST),
    "a trailer of 1 MB": head(LINE, HOST, JSON, "Transfer-Encoding: chunked")
    + b"0\r\nX: " + b"y" * MIB + b"\r\n\r\n",
    "a chunk's extension of 1 MB": head(LINE, HOST, JSON, "Transfer-Encoding: chunked")
    + b"1;" + b"y" * MIB + b"\r\n \r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_heads_without_end(server: ServerProcess, case: str) -> None:
    answer = exchange(server.port, HEADS[case])
    check_rule(answer)
    # A trailer or an extension that is read and dropped harms nobody: its body was empty.
    assert answer.status in ({0, 400, 413, 431} if "1 MB" in case else {400, 431})
    check_good(server)


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 431), (250_000, 431)])
@pytest.mark.parametrize("before", [b"", post("/predict", b'{"x": 2}')], ids=["alone", "pipelined"])
def test_heads_that_arrive_all_at_once(
    server: ServerProcess, size: int, status: int, before: bytes
) -> None:
    """The limit is the same for a head that is there before the first look at it."""
    request = head("GET /health/live HTTP/1.1", HOST, "Connection: close", "X: " + "y" * size)
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as client:
        client.sendall(before + request)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    if before:  # is whole, and answered: at once, or as the last one
        assert received.count(b'"y":[4.0]') == 1
    if status == 200 or not before:
        assert received.count(f"HTTP/1.1 {status} ".encode()) >= 1
    assert (b'{"status":"live"}' in received) == (status == 200)
    check_good(server)


@pytest.mark.parametrize("version", ["", " HTTP/0.9", " HTTP/1.2", " HTTP/2.0", " HTTP/9.9"])
def test_other_versions_of_http(server: ServerProcess, version: str) -> None:
    answer = exchange(server.port, head(f"GET /health/live{version}", HOST))
    check_rule(answer)
    assert answer.status == 400
    check_good(server)


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/static/docs.js", {200}),
        ("/models/curve-mlp/report", {200}),
        ("/health/live", {200}),
        ("/openapi.json", {200}),
    ],
)
def test_two_thousand_ranges(server: ServerProcess, path: str, statuses: set[int]) -> None:
    ranges = "Range: bytes=" + ",".join(f"{i}-{i + 1}" for i in range(0, 4000, 2))
    answer = exchange(server.port, head(f"GET {path} HTTP/1.1", HOST, ranges))
    plain = exchange(server.port, head(f"GET {path} HTTP/1.1", HOST))
    assert answer.status in statuses
    assert answer.body == plain.body


@pytest.mark.parametrize(
    "path",
    [
        f"/models/{CANARY}",
        f"/models/..%2f..%2f{CANARY}",
        f"/models/%00{CANARY}",
        f"/models/%ff{CANARY}",
        f"/models/{CANARY}/report",
        f"/models/curve-mlp/{CANARY}.png",
        f"/models/curve-mlp/..%2f..%2f{CANARY}",
        f"/v2/models/{CANARY}",
        f"/v2/models/curve-mlp/versions/{CANARY}",
        f"/v2/models/curve-mlp/versions/{'9' * 20}",
        f"/static/../{CANARY}",
        f"/static/%2e%2e/%2e%2e/{CANARY}",
        f"/static/{CANARY}%00",
        f"/static//etc/{CANARY}",
        "/static/" + "a/" * 2000 + CANARY,
        "/static/" + "a" * 5000,
        f"//{CANARY}/",
        f"/{CANARY}?x=%0d%0aSet-Cookie:%20{CANARY}",
        f"http://{CANARY}.example/health/{CANARY}",
        f"*{CANARY}",
    ],
)
def test_addresses_that_lead_nowhere(server: ServerProcess, path: str) -> None:
    answer = exchange(server.port, head(f"GET {path} HTTP/1.1", HOST))
    check_rule(answer)
    assert answer.status in {400, 404, 422}
    check_good(server)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT"])
@pytest.mark.parametrize("path", ["/predict", "/classify", "/models/curve-mlp", "/health/live"])
def test_no_other_method_does_anything(server: ServerProcess, method: str, path: str) -> None:
    answer = exchange(
        server.port, head(f"{method} {path} HTTP/1.1", HOST, f"X-HTTP-Method-Override: {CANARY}")
    )
    if answer.status != 0:
        check_rule(answer)
        assert answer.status in {400, 404, 405}
    check_good(server)


@pytest.mark.parametrize(
    "query",
    ["top_k=" + "9" * 5000, "top_k=%00", "top_k=NaN", "top_k=true", "model=%ff%fe", f"{CANARY}=1",
     "&".join(["top_k=1"] * 2000), "top_k=%", "model=%ed%a0%80", "=&=&=", f"label={CANARY}",
     f"model=../{CANARY}", "top_k=1e400", "top_k=-0.0"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/classify", "/explain"])
def test_queries(server: ServerProcess, path: str, query: str) -> None:
    answer = exchange(server.port, post(f"{path}?{query}", RED, "image/png"))
    check_rule(answer)
    assert answer.status in {400, 404, 422}
    check_good(server)
