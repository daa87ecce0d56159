"""Very many connections that hold what they can: each is cheap, and others are served meanwhile."""

import http.client
import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hostile.process import descriptors, forget_peak, peak_mib, resident_mib
from tests.hostile.wire import check_good, post
from tests.server_process import ServerProcess

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
LONG = LIVE + (b"X-A: " + b"y" * 3990 + b"\r\n") * 15
FIELDS = LIVE + b"a:b\r\n" * 12_000
TYPE = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
AFTER_LONG = TYPE + LONG.partition(b"Host: a\r\n")[2] + b"Content-Length: 9\r\n\r\n"
# What each sends, how many there are, and the MiB that all may take while they are open, of a
# worker whose requests may have 64.
HOLDING = {
    "answered": (LIVE + b"\r\n", 500, 16),
    "answered, a head of 60 KB": (LONG + b"\r\n", 500, 24),
    "12,000 fields": (FIELDS + b"\r\n", 200, 24),
    "half a head": (LONG, 1000, 56),
    "a body to come after a head of 60 KB": (AFTER_LONG, 500, 52),
    "half a body": (TYPE + b"Content-Length: 70000\r\n\r\n" + b" " * 60_000, 500, 48),
    "an answer of 950 KB that is not read": (
        post("/predict", b'{"x":[%s1]}' % (b"1.234567," * 49_999)),
        400,
        110,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port: int, sent: bytes) -> socket.socket:
    """A connection that has sent this, as far as the server took it, and reads little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    with suppress(OSError):  # refused meanwhile
        client.sendall(sent)
    return client


@pytest.mark.parametrize("kind", HOLDING)
def test_what_a_connection_holds_is_bounded(hostile_artifacts: Path, kind: str) -> None:
    sent, number, most = HOLDING[kind]
    clients: list[socket.socket] = []
    limits = {"access_log": False, "max_memory_bytes": 64 * 2**20}
    with ServerProcess(hostile_artifacts, **limits).wait_ready() as server:
        (worker,) = server.workers()
        check_good(server)
        size = resident_mib(worker)
        forget_peak(worker)
        try:
            for _ in range(number):
                clients.append(connect(server.port, sent))
            check_good(server)
            above = peak_mib(worker) - size
            print(f"{kind}: {above:.1f} MiB")
            assert above < most
            assert server.workers() == [worker]
        finally:
            for client in clients:
                client.close()
        check_good(server)


def test_over_the_limit_those_idle_longest_go(hostile_artifacts: Path) -> None:
    with ServerProcess(hostile_artifacts, max_connections=64).wait_ready() as server:
        busy = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        kinds = [b"", LIVE, LIVE + b"\r\n", TYPE + b"Content-Length: 9\r\n\r\n1"]
        clients = []
        for number in range(400):
            clients.append(connect(server.port, kinds[number % len(kinds)]))
            if number % 10 == 0:  # idle for less long than most
                busy.request("GET", "/health/live")
                assert json.loads(busy.getresponse().read()) == {"status": "live"}
        (worker,) = server.workers()
        # Those that were refused linger for a second.
        server.wait_until(lambda: descriptors(worker) < 64 + 60, "the rest is closed", 20)
        check_good(server)
        said = b""
        with suppress(ConnectionError):
            said = clients[1].recv(4096)
        assert said == b"" or said.startswith(b"HTTP/1.1 429 ")
        for client in clients:
            client.close()
        assert "Traceback" not in server.log.read_text()


def test_half_closed_connections_are_answered_and_gone(hostile_artifacts: Path) -> None:
    with ServerProcess(hostile_artifacts, access_log=False).wait_ready() as server:
        (worker,) = server.workers()
        check_good(server)
        time.sleep(0.3)
        before = descriptors(worker)
        clients = [connect(server.port, LIVE + b"\r\n" + LIVE) for _ in range(300)]
        for client in clients:
            client.shutdown(socket.SHUT_WR)
        for client in clients:
            said = b""
            while piece := client.recv(4096):
                said += piece
            assert said.count(b"HTTP/1.1 200 OK") == said.count(b"HTTP/1.1 ") == 1
        server.wait_until(lambda: descriptors(worker) <= before, "descriptors are back", 20)
        for client in clients:
            client.close()
