"""What the server promises about its life, against real processes."""

import os
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server_process import ServerProcess
from tests.tiny_artifacts import png, publish_all, publish_curve

GRACE_SECONDS = 15
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with a reset
# GRADSERVE_LONG=1 repeats as often as the promises in SECURITY.md and README say.
LONG = os.environ.get("GRADSERVE_LONG") == "1"
SWAPS = 50 if LONG else 5
# A version is verified by a process of its own, whose imports take half a second of processor time;
# while the load takes both cores that is several seconds.
SWAP_SECONDS = 20
DRAINS = 20 if LONG else 1


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    publish_all(root)
    return root


class Load:
    """Clients that ask for f(2) without pause, and note whatever isn't a right answer.

    f(2) = 4 + (version − 1) for the versions that these tests publish.
    """

    def __init__(self, server: ServerProcess, clients: int = 4) -> None:
        self.server = server
        self.failures: list[str] = []
        self.answers: list[int] = []
        self.going = True
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.going = False
        for thread in self.threads:
            thread.join(20)

    def _run(self) -> None:
        while self.going:
            try:
                status, answer = self.server.post("/predict", {"x": 2})
            except OSError as error:
                if self.going:
                    self.failures.append(repr(error))
                continue
            if status != 200 or answer["y"] != [4.0 + answer["version"] - 1]:
                self.failures.append(f"{status} {answer}")
            else:
                self.answers.append(answer["version"])


def test_new_versions_are_taken_up_under_load_and_given_up_again(artifacts: Path) -> None:
    with ServerProcess(artifacts, workers=2, watch_seconds=0.2).wait_ready() as server:

        def all_workers_serve(version: int) -> Callable[[], bool]:
            return lambda: (
                {server.post("/predict", {"x": 2})[1]["version"] for _ in range(8)} == {version}
            )

        with Load(server) as load:
            last = SWAPS + 1
            for version in range(2, last + 1):
                publish_curve(artifacts, offset=float(version - 1))
                server.wait_until(all_workers_serve(version), f"version {version}", SWAP_SECONDS)
            # A bad one changes nothing.
            publish_curve(artifacts, offset=9.0, **{"value.onnx": b"junk"})
            server.wait_until(
                lambda: server.get("/models/curve-mlp")[1]["versions"][0]["state"] == "refused",
                "the bad version is refused",
                SWAP_SECONDS,
            )
            shutil.rmtree(artifacts / "curve-mlp" / str(last + 1))
            shutil.rmtree(artifacts / "curve-mlp" / str(last))
            server.wait_until(all_workers_serve(last - 1), "the version before", SWAP_SECONDS)
        assert load.failures == []
        assert set(load.answers) == set(range(1, last + 1))


def test_memory_is_given_back_after_swaps(artifacts: Path) -> None:
    with ServerProcess(artifacts, watch_seconds=0.1).wait_ready() as server:
        (worker,) = server.workers()

        def resident() -> int:
            status = Path(f"/proc/{worker}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0])  # KiB

        def publish_until(last: int) -> None:
            for version in range(server.get("/models/curve-mlp")[1]["version"] + 1, last + 1):
                publish_curve(artifacts, offset=float(version))
                server.wait_until(
                    lambda v=version: server.get("/models/curve-mlp")[1]["version"] == v,
                    f"version {version}",
                    SWAP_SECONDS,
                )

        publish_until(4)
        before = resident()
        publish_until(4 + 2 * SWAPS)
        assert resident() - before < 8 * 1024


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced(artifacts: Path, blow: signal.Signals) -> None:
    with ServerProcess(artifacts, workers=2, worker_timeout_seconds=2).wait_ready() as server:
        victim = server.workers()[0]
        started = time.monotonic()
        os.kill(victim, blow)
        server.wait_until(
            lambda: victim not in server.workers() and len(server.workers()) == 2, "replaced", 8
        )
        server.wait_ready()
        assert time.monotonic() - started < 8
        assert all(server.post("/predict", {"x": 2})[0] == 200 for _ in range(10))


@pytest.mark.parametrize("_time", range(DRAINS))
def test_sigterm_drains_without_losing_an_answer(artifacts: Path, _time: int) -> None:
    server = ServerProcess(artifacts, workers=2, drain_delay_seconds=1)
    with server, Load(server.wait_ready()) as load:
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.get("/health/ready")[0] == 503, "not ready", 0.9)
        assert server.get("/health/live")[0] == 200
        load.going = False  # as a load balancer does
        assert server.process.wait(GRACE_SECONDS) == 0
    assert load.failures == []
    assert load.answers


def test_a_stalled_upload_does_not_hold_up_the_drain(artifacts: Path) -> None:
    settings = {"drain_delay_seconds": 0, "drain_seconds": 1}
    with (
        ServerProcess(artifacts, **settings).wait_ready() as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n")
        client.sendall(b"Content-Type: image/png\r\n\r\n\x89PNG")
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(GRACE_SECONDS) == 0


def read_all(client: socket.socket) -> bytes:
    client.settimeout(10)
    received = b""
    while chunk := client.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"408"),
        (b"POST /classify HTTP/1.1\r\nHost:", b"408"),
        (b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
         b"Content-Type: image/png\r\n\r\nx", b"408"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
    ],
)  # fmt: skip
def test_slow_and_senseless_clients_are_sent_away(
    slow_server: ServerProcess, sent: bytes, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", slow_server.port)) as client:
        client.sendall(sent)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"application/problem+json" in answer
    assert slow_server.is_ready()


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("slow") / "artifacts"
    publish_all(root)
    with ServerProcess(root, header_seconds=1, body_seconds=1).wait_ready() as server:
        yield server


def test_trickling_clients_are_closed_and_hold_up_nobody(slow_server: ServerProcess) -> None:
    clients = [socket.create_connection(("127.0.0.1", slow_server.port)) for _ in range(50)]
    started = time.monotonic()
    left = set(clients)
    while left and time.monotonic() - started < 10:
        for client in list(left):
            try:
                client.sendall(b"G" if client.fileno() % 2 else b"\r\n")
            except OSError:
                left.discard(client)
        assert slow_server.classify(png((9, 0, 0)))[0] == 200
        time.sleep(0.1)
    for client in clients:
        client.close()
    assert not left


def test_requests_on_one_connection_one_by_one_and_pipelined(slow_server: ServerProcess) -> None:
    one = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"HEAD /static/docs.js HTTP/1.1\r\nHost: a\r\n\r\n"
    probe = b"HEAD /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", slow_server.port)) as client:
        client.sendall(one + head + one + probe + last)
        answer = read_all(client)
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.count(b'{"status":"live"}') == 3


def test_an_idle_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    publish_all(tmp_path / "artifacts")
    head = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    started = ServerProcess(tmp_path / "artifacts", keep_alive_seconds=3, header_seconds=1)
    with started.wait_ready() as server:
        for late in (b"", b"body", b"body" + head + b"body"):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(head if late else head + b"body")
                answer = client.recv(65536)  # before the body is there, if it comes late
                client.sendall(late)
                answer += read_all(client)
            assert (
                answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 404 ") == 1 + late.count(head)
            )


def test_a_request_that_arrives_slowly_after_another_is_not_idle(tmp_path: Path) -> None:
    publish_all(tmp_path / "artifacts")
    early = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    body = b'{"x": 2}'
    slow = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    slow += b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        ServerProcess(tmp_path / "artifacts", keep_alive_seconds=1).wait_ready() as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(early)
        assert b" 404 " in client.recv(65536)
        client.sendall(b"body" + slow)
        time.sleep(1.5)
        client.sendall(body)
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_expect_continue_is_answered_before_the_body(slow_server: ServerProcess) -> None:
    image = png((0, 0, 9))
    with socket.create_connection(("127.0.0.1", slow_server.port)) as client:
        client.settimeout(5)
        client.sendall(
            b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(image)
        )
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(image)
        assert b'"blue"' in read_all(client)


def test_clients_that_vanish_leave_nothing_behind(artifacts: Path) -> None:
    with ServerProcess(artifacts, queue_depth=4).wait_ready() as server:
        (worker,) = server.workers()
        image = png((200, 0, 0), (1500, 1500))

        def descriptors() -> int:
            return len(list(Path(f"/proc/{worker}/fd").iterdir()))

        before = descriptors()
        head = (
            b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Content-Length: %d\r\n\r\n" % len(image)
        )
        for share in (0, 0.5, 0.99, 1) * 25:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(head + image[: int(len(image) * share)])
                if share == 1:  # gone with a reset, perhaps before the request has begun
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        server.wait_until(lambda: descriptors() <= before, "descriptors are back", 10)
        for _ in range(5):
            assert server.classify(png((9, 0, 0)))[0] == 200
        assert b"gradserve_queue_places 0.0" in server.request("GET", "/metrics")[1]


def test_bad_settings_and_a_taken_port_are_said_in_a_line(artifacts: Path) -> None:
    bad = ServerProcess(artifacts, max_x="many")
    assert bad.process.wait(30) == 2
    assert "GRADSERVE_MAX_X" in bad.log.read_text()
    assert "Traceback" not in bad.log.read_text()
