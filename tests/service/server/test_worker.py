"""One worker at the limits of its process."""

import socket
import time
from pathlib import Path

from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_all

DESCRIPTORS = 64


class FewDescriptors(ServerProcess):
    """As after ``ulimit -n 64``."""

    program = (
        "-c",
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, {(DESCRIPTORS, DESCRIPTORS)})\n"
        "from service.__main__ import main\nraise SystemExit(main())",
    )


def test_without_descriptors_files_are_refused_and_the_rest_is_answered(tmp_path: Path) -> None:
    publish_all(tmp_path / "artifacts")
    with FewDescriptors(tmp_path / "artifacts").wait_ready() as server:
        address = ("127.0.0.1", server.port)
        ask = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
        client = socket.create_connection(address, timeout=20)
        client.sendall(ask % b"/health/live")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        others = [socket.create_connection(address, timeout=20) for _ in range(DESCRIPTORS)]
        time.sleep(1)
        expected = {
            b"/metrics": 503,
            b"/static/docs.js": 503,
            b"/models/curve-mlp/report": 503,
            b"/models/curve-mlp/report/report.md": 503,
            b"/models": 200,
            b"/health/live": 200,
        }
        for path, status in expected.items():
            client.sendall(ask % path)
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 %d " % status), path
        for other in (client, *others):
            other.close()
        server.wait_until(lambda: server.request("GET", "/metrics")[0] == 200, "metrics", 10)
    assert "Traceback" not in server.log.read_text()
