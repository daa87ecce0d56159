"""Where requests begin and end, what is written below the application, and uvicorn's names."""

import asyncio
import base64
import inspect
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http import httptools_impl

from service.server.framing import CHUNKED, Malformed, read_head
from service.server.intake import LEAST_PIECE_BYTES, TURN_BYTES, Intake, piece_bytes
from service.web.security import ALWAYS
from tests.server_process import ServerProcess
from tests.tiny_artifacts import png, publish_all

HOST = b"Host: a\r\n"
LINE = b"POST /predict HTTP/1.1\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"x": 2}'
SIZED = b"Content-Length: 8\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
LAST = LIVE + b"Connection: close\r\n\r\n"
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One worker with two places, whose log and metrics can be read."""
    root = tmp_path_factory.mktemp("protocol") / "artifacts"
    publish_all(root)
    options = {"header_seconds": 2, "body_seconds": 2, "cors_origins": ORIGIN, "queue_depth": 2}
    with ServerProcess(root, log_format="text", **options).wait_ready() as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def ask(port: int, sent: bytes, *, half_close: bool = False) -> bytes:
    """All that the server says until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_to_upgrade_is_ignored_and_the_body_read(
    server: ServerProcess, offer: bytes, chunked: bool
) -> None:
    """A body that was skipped was answered as a request: behind a proxy, another client's."""
    head = LINE + HOST + JSON + b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\n"
    hidden = b"GET /models HTTP/1.1\r\nHost: a\r\n\r\n"
    for body, answer in ((BODY, b'"y":[4.0]'), (hidden, b'"status":400')):
        if chunked:
            framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            framed = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        received = ask(server.port, head + framed + LAST)
        assert len(statuses(received)) == 2
        assert answer in received
        assert received.endswith(b'{"status":"live"}')


REFUSED = {
    "no Host": LINE + JSON + SIZED,
    "two Hosts": LINE + HOST + HOST + JSON + SIZED,
    "a Host that is none": LINE + b"Host: a b\r\n" + JSON + SIZED,
    "a Host with a path": LINE + b"Host: a/b\r\n" + JSON + SIZED,
    "identity and chunked": LINE + HOST + JSON + b"Transfer-Encoding: identity, chunked\r\n",
    "chunked twice": LINE + HOST + JSON + b"Transfer-Encoding: chunked\r\n" * 2,
    "gzip": LINE + HOST + JSON + b"Transfer-Encoding: gzip\r\n",
    "chunked in HTTP/1.0": LINE.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n",
    "chunked with a length": LINE + HOST + JSON + SIZED + b"Transfer-Encoding: chunked\r\n",
    "RTSP": LINE.replace(b"HTTP/1.1", b"RTSP/1.0") + HOST + JSON + SIZED,
    "ICE": LINE.replace(b"HTTP/1.1", b"ICE/1.0") + HOST + JSON + SIZED,
    "two spaces": LINE.replace(b"POST ", b"POST  ") + HOST + JSON + SIZED,
    "two spaces behind": LINE.replace(b" HTTP", b"  HTTP") + HOST + JSON + SIZED,
    "a tab": LINE.replace(b"POST ", b"POST\t") + HOST + JSON + SIZED,
    "space before": b" " + LINE + HOST + JSON + SIZED,
    "a folded field": LINE + HOST + JSON + b"Content-Length: 8\r\n 0\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n",
    "CONNECT with an offer": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n",
    "an address of files": LINE.replace(b"/predict", b"file:///predict") + HOST + JSON + SIZED,
    "a name and a key": LINE.replace(b"/predict", b"http://b@a/predict") + HOST + JSON + SIZED,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_rules_do_not_allow_is_refused_and_closed(
    server: ServerProcess, case: str
) -> None:
    received = ask(server.port, REFUSED[case] + b"\r\n" + BODY + LAST)
    assert statuses(received) == [400]
    assert b"connection: close" in received


def test_a_head_without_its_carriage_returns_is_refused_at_once(server: ServerProcess) -> None:
    assert statuses(ask(server.port, b"GET / HTTP/1.1\nHost: a\n\n")) == [400]


def test_trailers_are_dropped(server: ServerProcess) -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n8\r\n%s\r\n0\r\n%s\r\n"
    trailers = b"X-Request-Id: from-a-trailer\r\nContent-Type: text/plain\r\n"
    received = ask(server.port, LINE + HOST + JSON + body % (BODY, trailers) + LAST)
    assert statuses(received) == [200, 200]
    assert b"from-a-trailer" not in received
    endless = LINE + HOST + JSON + body % (BODY, b"X: y\r\n" * 100_000)
    assert statuses(ask(server.port, endless)) in ([400], [200], [])


def test_every_split_of_a_conversation_gives_the_same_answers(server: ServerProcess) -> None:
    chunks = b"Transfer-Encoding: chunked\r\n\r\n8;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % BODY
    sent = (
        b"\r\n" + LINE + HOST + JSON + chunks + LINE + HOST + JSON + SIZED + b"\r\n" + BODY + LAST
    )
    whole = ask(server.port, sent)
    assert statuses(whole) == [200, 200, 200]
    for size in (1, 2, 3, 7, 50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(sent), size):
                client.sendall(sent[start : start + size])
            received = b""
            while piece := client.recv(65536):
                received += piece
        assert statuses(received) == [200, 200, 200]
        assert received.count(b'"y":[4.0]') == 2


def test_a_thousand_refused_requests_in_one_write(server: ServerProcess) -> None:
    """Each began the next from within: 300 of them ended in a RecursionError."""
    image = png((250, 5, 5))
    one = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    one += b"Content-Length: %d\r\n\r\n%s" % (len(image), image)
    slow = [threading.Thread(target=ask, args=(server.port, one * 30 + LAST)) for _ in range(4)]
    for thread in slow:
        thread.start()
    received = ask(server.port, one * 1000 + LAST)
    for thread in slow:
        thread.join()
    found = statuses(received)
    assert len(found) == 1001
    assert set(found) <= {200, 429}


def test_what_is_written_below_the_application_has_the_form_of_its_protocol(
    server: ServerProcess,
) -> None:
    line = b"POST /v2/models/curve-mlp/infer HTTP/1.1\r\n"
    for status, sent in {
        408: line + HOST + JSON + SIZED + b"\r\n{",
        400: line + b"\r\n",
        431: line + b"X: " + b"y" * 70_000,
    }.items():
        problem = json.loads(ask(server.port, sent).partition(b"\r\n\r\n")[2])
        assert problem["status"] == status
        assert problem["error"] == problem["detail"]
    assert b'"error"' not in ask(server.port, LINE + b"\r\n")


def test_what_is_written_below_the_application_is_like_every_other_answer(
    server: ServerProcess,
) -> None:
    same = b"X-Request-Id: mine-7\r\nOrigin: " + ORIGIN.encode() + b"\r\n"
    cases = {
        408: LINE + HOST + JSON + same + SIZED + b"\r\n{",
        400: LINE + same + b"\r\n",
        431: LINE + same + b"X: " + b"y" * 70_000,
    }
    for status, sent in cases.items():
        received = ask(server.port, sent)
        head, _, body = received.partition(b"\r\n\r\n")
        assert statuses(received) == [status]
        assert json.loads(body)["status"] == status
        lines = head.lower().split(b"\r\n")
        for name, value in ALWAYS:
            assert name + b": " + value in lines
        assert b"x-request-id: mine-7" in lines
        assert b"access-control-allow-origin: " + ORIGIN.encode() in lines
        assert any(line.startswith(b"date: ") for line in lines)
        server.wait_until(
            lambda s=status: f" {s} 0.0 ms mine-7" in server.log.read_text(), "its record", 5
        )
    text = server.request("GET", "/metrics")[1].decode()
    for reason in ("malformed", "too slow", "head too large"):
        assert re.search(rf'gradserve_refusals_total\{{reason="{reason}"\}} [1-9]', text)
    odd = ask(server.port, LINE + b"X-Request-Id: not one!\r\nOrigin: https://b.example\r\n\r\n")
    assert b"not one" not in odd
    assert b"access-control" not in odd


KEY = b"X-API-Key: a-key-of-sixteen-characters\r\n"
GOOD = b"Host: good.example\r\n" + KEY
# Wherever they are refused: below the application, around it and in it.
EVERY_REFUSAL = {
    "a head too slow": (408, LINE + GOOD),
    "a body too slow": (408, LINE + GOOD + JSON + SIZED + b"%s\r\n{"),
    "no Host": (400, LINE + KEY + b"%s\r\n"),
    "CONNECT": (400, b"CONNECT a:443 HTTP/1.1\r\n" + GOOD + b"%s\r\n"),
    "another coding": (400, LINE + GOOD + b"Transfer-Encoding: gzip\r\n%s\r\n"),
    "a wrong chunk": (400, LINE + GOOD + JSON + b"Transfer-Encoding: chunked\r\n%s\r\nxyz\r\n"),
    "a long head": (431, LINE + GOOD + b"%s" + b"X: " + b"y" * 70_000),
    "many fields": (431, LINE + GOOD + b"%s" + b"a: b\r\n" * 200 + b"\r\n"),
    "another host": (400, LINE + b"Host: b.example\r\n" + KEY + b"%s\r\n"),
    "no key": (401, LINE + b"Host: good.example\r\n%s\r\n"),
    "a long body": (413, LINE + GOOD + JSON + b"Content-Length: 99000000\r\n%s\r\n"),
    "no path": (404, b"GET /nothing HTTP/1.1\r\n" + GOOD + b"%s\r\n"),
    "another method": (405, b"DELETE /predict HTTP/1.1\r\n" + GOOD + b"%s\r\n"),
    "an unknown method": (400, b"BREW /predict HTTP/1.1\r\n" + GOOD + b"%s\r\n"),
    "another type": (415, LINE + GOOD + b"Content-Type: a/b\r\n" + SIZED + b"%s\r\n" + BODY),
    "other JSON": (422, LINE + GOOD + JSON + b"Content-Length: 2\r\n%s\r\n{}"),
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One worker that asks for host and key, and lets one page call it."""
    root = tmp_path_factory.mktemp("strict") / "artifacts"
    publish_all(root)
    (root.parent / "keys").write_text("a-key-of-sixteen-characters\n")
    options = {
        "header_seconds": 2,
        "body_seconds": 2,
        "cors_origins": ORIGIN,
        "queue_depth": 1,
        "allowed_hosts": "good.example",
        "api_key_file": root.parent / "keys",
    }
    with ServerProcess(root, **options) as running:
        running.wait_until(lambda: "serving on" in running.log.read_text(), "it listens")
        running.wait_listening()
        yield running


@pytest.mark.parametrize("case", EVERY_REFUSAL)
def test_every_refusal_has_the_headers_of_every_answer(strict: ServerProcess, case: str) -> None:
    status, sent = EVERY_REFUSAL[case]
    same = b"X-Request-Id: mine-7\r\nOrigin: " + ORIGIN.encode() + b"\r\nConnection: close\r\n"
    sent = sent % same if b"%s" in sent else sent + same
    received = ask(strict.port, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    assert statuses(received) == [status], received
    document = json.loads(body)
    assert document["status"] == status and document["detail"]
    check_headers(head, body, b"connection: close")


def check_headers(head: bytes, body: bytes, *more: bytes) -> None:
    """Those of every answer, each once, and ``more`` lines."""
    lines = head.lower().split(b"\r\n")
    for name, value in ALWAYS:
        assert lines.count(name + b": " + value) == 1
    for line in (
        b"x-request-id: mine-7",
        b"access-control-allow-origin: " + ORIGIN.encode(),
        b"access-control-expose-headers: x-request-id",
        b"vary: origin",
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        *more,
    ):
        assert lines.count(line) == 1, line
    assert sum(line.startswith(b"date: ") for line in lines) == 1


# Who finds no room: before the head is parsed, after it, and in the application.
FOR_LOAD = {
    "unparsed": (b"/classify", b"Connection: keep-alive\r\n"),
    "parsed": (b"/classify", b"Connection: close\r\n"),
    "in the application": (b"/v2/models/cifar-improved/infer", b"Connection: close\r\n"),
}


@pytest.mark.parametrize("case", FOR_LOAD)
def test_a_refusal_for_load_has_the_headers_of_every_answer(
    strict: ServerProcess, case: str
) -> None:
    strict.wait_ready()
    path, connection = FOR_LOAD[case]
    same = b"X-Request-Id: mine-7\r\nOrigin: " + ORIGIN.encode() + b"\r\n"

    def request(path: bytes, connection: bytes, picture: bytes) -> bytes:
        if path == b"/classify":
            kind, body = b"image/png", picture
        else:
            kind = b"application/json"
            data = {"name": "image", "shape": [1], "datatype": "BYTES"}
            data["data"] = [base64.b64encode(picture).decode()]
            body = json.dumps({"inputs": [data]}).encode()
        lines = GOOD + same + connection + b"Content-Type: %s\r\n" % kind
        size = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"POST %s HTTP/1.1\r\n" % path + lines + size + body

    large = request(b"/classify", b"Connection: close\r\n", png((250, 5, 5), (4000, 4000)))
    done = threading.Event()

    def keep_busy() -> None:
        while not done.is_set():
            ask(strict.port, large)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    asked = request(path, connection, png((250, 5, 5)))
    answers = []

    def refused() -> bool:
        answers.append(ask(strict.port, asked, half_close=True))
        return statuses(answers[-1]) == [429]

    try:
        strict.wait_until(refused, "the queue is full")
    finally:
        done.set()
        busy.join()
    head, _, body = answers[-1].partition(b"\r\n\r\n")
    assert json.loads(body)["status"] == 429
    closes = [b"connection: close"] if b"close" in connection else []
    check_headers(head, body, b"retry-after: 1", *closes)


def test_a_preflight_may_ask_for_an_id_and_a_trace(server: ServerProcess) -> None:
    wanted = b"x-request-id, traceparent"
    sent = b"OPTIONS /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: %s\r\n" % (
        ORIGIN.encode()
    )
    sent += b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: %s\r\n\r\n"
    assert statuses(ask(server.port, sent % wanted)) == [200]


@pytest.mark.parametrize("status", [413, 415])
def test_an_answer_that_comes_before_the_body_is_not_lost(
    server: ServerProcess, status: int
) -> None:
    """A reset, which closing at once would be, takes the answer from who is still sending."""
    size = 5 * 2**20
    kind = JSON if status == 413 else b""
    sent = LINE + HOST + kind + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(sent)
        received = b""
        while piece := client.recv(65536):
            received += piece
        assert statuses(received) == [status]
        for _ in range(5):
            client.sendall(b" " * 2**20)
        with pytest.raises(ConnectionError):  # it was closed at the end of the body
            for _ in range(500):
                client.sendall(LIVE)
                time.sleep(0.02)


def test_an_interim_answer_is_for_newer_clients_only(server: ServerProcess) -> None:
    expecting = JSON + SIZED + b"Expect: 100-continue\r\n%s\r\n" + BODY
    close = b"Connection: close\r\n"
    assert statuses(ask(server.port, LINE + HOST + expecting % close)) == [100, 200]
    older = LINE.replace(b"1.1", b"1.0")
    assert statuses(ask(server.port, older + expecting % b"")) == [200]


@pytest.mark.parametrize("before", [0, 3])
def test_a_half_closed_client_gets_its_answers(server: ServerProcess, before: int) -> None:
    one = LINE + HOST + JSON + SIZED + b"\r\n" + BODY
    received = ask(server.port, one * (before + 1), half_close=True)
    assert statuses(received) == [200] * (before + 1)
    assert ask(server.port, one[:-1], half_close=True) == b""  # at once, and nothing to answer


def test_the_host_of_an_absolute_target_is_the_one_that_is_judged(tmp_path: Path) -> None:
    publish_all(tmp_path / "artifacts")
    (tmp_path / "keys").write_text("a-key-of-sixteen-characters\n")
    restrictions = {"allowed_hosts": "good.example", "api_key_file": tmp_path / "keys"}
    with ServerProcess(
        tmp_path / "artifacts", queue_depth=1, **restrictions
    ).wait_ready() as server:
        line = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n"
        key = b"X-API-Key: a-key-of-sixteen-characters\r\n"
        for target, host, status in (
            (b"http://good.example/models?a=b", b"evil.example", 200),
            (b"HTTP://Good.Example:80/models", b"good.example", 200),
            (b"http://evil.example/models", b"good.example", 400),
            (b"http://evil.example", b"evil.example", 400),
        ):
            assert statuses(ask(server.port, line % (target, host, key))) == [status]
        # However full the queue is, who has no key gets 401, and health is answered.
        image = png((250, 5, 5), (900, 900))
        one = b"POST /classify HTTP/1.1\r\nHost: good.example\r\nContent-Type: image/png\r\n%s"
        one += b"Content-Length: %d\r\n\r\n%s" % (len(image), image)
        busy = [
            threading.Thread(target=ask, args=(server.port, one % key * 20 + LAST))
            for _ in range(6)
        ]
        for thread in busy:
            thread.start()
        close = b"Connection: close\r\n"
        for _ in range(5):
            assert statuses(ask(server.port, one % close)) == [401]
            assert statuses(ask(server.port, LAST)) == [200]
        for thread in busy:
            thread.join()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_head_that_passes_is_read_alike_by_the_parser(data: Any) -> None:
    """The parser must end it where we do, with the same length."""
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"0", b":", b"\x00", SIZED, HOST, b"chunked"]
    pieces += [b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n"]
    head = LINE + HOST + JSON + SIZED + b"Accept: */*\r\n\r\n"
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(head)))
        end = data.draw(st.integers(start, min(len(head), start + 6)))
        head = head[:start] + data.draw(st.sampled_from(pieces)) + head[end:]
    head, end, _ = head.partition(b"\r\n\r\n")
    head += end
    if not end:
        return
    try:
        seen, length = read_head(head)
    except Malformed:
        return

    class Found:
        complete = 0

        def on_message_complete(self) -> None:
            self.complete += 1

    found = Found()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(seen)
        if length == CHUNKED:
            assert not found.complete
            parser.feed_data(b"0\r\n\r\n")
        elif length:
            assert not found.complete
            parser.feed_data(b"x" * min(length, 100_000))
            length = min(length, 100_000) if length <= 100_000 else -length
    except httptools.HttpParserError:
        return  # refused as well
    assert found.complete == (length >= CHUNKED)


def test_the_names_of_uvicorn_that_are_used() -> None:
    """Private ones among them: pyproject.toml allows the versions that have them all."""
    protocol = httptools_impl.HttpToolsProtocol
    assert list(inspect.signature(protocol.__init__).parameters)[1:] == [
        "config", "server_state", "app_state", "_loop",
    ]  # fmt: skip
    signatures = {
        protocol.connection_made: ["self", "transport"],
        protocol.on_message_begin: ["self"],
        protocol.on_url: ["self", "url"],
        protocol.shutdown: ["self"],
        uvicorn.Server.startup: ["self", "sockets"],
        uvicorn.Server.shutdown: ["self", "sockets"],
        uvicorn.Server.on_tick: ["self", "counter"],
        uvicorn.Server.handle_exit: ["self", "sig", "frame"],
        uvicorn.Server.capture_signals: ["self"],
    }
    for function, parameters in signatures.items():
        assert list(inspect.signature(function).parameters) == parameters, function
    assert httptools_impl.STATUS_LINE[408].startswith(b"HTTP/1.1 408 ")
    code = "\n".join(inspect.getsource(part) for part in (protocol, httptools_impl.FlowControl))
    for name in (
        "app", "app_state", "client", "connections", "cycle", "expect_100_continue", "flow",
        "headers", "loop", "parser", "read_paused", "root_path", "scope", "server_state", "tasks",
        "transport", "url", "write_paused",
    ):  # fmt: skip
        assert f"self.{name} = " in code or f"self.{name}: " in code, name
    # What uvicorn's own code asks of ``cycle``, which is ours.
    used = inspect.getsource(protocol.shutdown)
    assert set(re.findall(r"self\.cycle\.(\w+)", used)) == {"response_complete", "keep_alive"}
    for method in ("drain", "pause_reading", "pause_writing", "resume_reading", "resume_writing"):
        assert hasattr(httptools_impl.FlowControl, method)
    server = inspect.getsource(uvicorn.Server)
    for name in ("lifespan", "server_state", "servers", "should_exit", "started"):
        assert f"self.{name}" in server, name


def test_nothing_that_waits_is_reset_at_the_end(tmp_path: Path) -> None:
    """Clients that connect anew for each request are answered until they are refused."""
    publish_all(tmp_path / "artifacts")
    options = {"workers": 2, "drain_delay_seconds": 0.3}
    client = (
        "import socket, sys\n"
        "while True:\n"
        "    try:\n"
        "        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)\n"
        "    except (ConnectionRefusedError, TimeoutError):\n"
        "        sys.exit(0)\n"
        "    s.sendall(b'GET /health/live HTTP/1.1\\r\\nHost: a\\r\\n'\n"
        "              b'Connection: close\\r\\n\\r\\n')\n"
        "    got = b''\n"
        "    while piece := s.recv(65536):\n"
        "        got += piece\n"
        "    assert b' 200 OK' in got, got\n"
        "    s.close()\n"
    )
    with ServerProcess(tmp_path / "artifacts", **options).wait_ready() as server:
        argv = [sys.executable, "-c", client, str(server.port)]
        clients = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(8)]
        threading.Event().wait(1.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        for process in clients:
            said = process.communicate(timeout=20)[1]
            assert process.returncode == 0, said.decode()


def test_many_connections_hold_less_of_a_body_each() -> None:
    assert piece_bytes(16) == 256 * 1024
    for connections in (64, 100, 1000):
        assert piece_bytes(connections) * connections <= 16 * 1024 * 1024
    assert piece_bytes(100_000) == LEAST_PIECE_BYTES


class Readable:
    """A connection as ``Intake`` sees it."""

    def __init__(self) -> None:
        self.reading, self.waits = True, False

    def may_be_read(self) -> bool:
        return not self.waits

    def pause_input(self) -> None:
        self.reading = False

    def resume_input(self) -> None:
        self.reading = True


def test_one_turn_of_the_loop_reads_a_bounded_amount() -> None:
    """Of thousands that send at once the rest is read when the first have been looked at."""
    connections = [Readable() for _ in range(3)]
    seen: list[list[bool]] = []

    async def scenario() -> None:
        intake, loop = Intake(), asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append([each.reading for each in connections]))  # a request
        for _ in range(3):
            intake.count(TURN_BYTES // 2, connections, loop)  # type: ignore[arg-type]
        connections[1].waits = True  # for a reason of its own
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append([each.reading for each in connections])
        intake.count(TURN_BYTES, connections, loop)  # type: ignore[arg-type]
        seen.append([each.reading for each in connections])

    asyncio.run(scenario())
    assert seen == [[False, False, False], [True, False, True], [True, False, True]]
