"""The real server as a process on a free port, for tests."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
# Where ``make test-clients`` installs each client, in an environment of its own.
CLIENTS = Path(os.environ.get("CLIENT_ENVIRONMENTS", ROOT / ".venv" / "clients"))
START_SECONDS = 90  # on a loaded machine; usually 2


class ServerProcess:
    """``python -m service`` over ``artifacts``; settings are keywords, as in GRADSERVE_*.

    ``port`` is known after ``wait_listening`` or ``wait_ready``.
    """

    program = ("-m", "service")

    def __init__(self, artifacts: Path, /, workers: int = 1, **settings: object) -> None:
        self.port = 0
        self.log = artifacts.parent / f"server-{time.monotonic_ns()}.log"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GRADSERVE_")},
            "GRADSERVE_ARTIFACTS": str(artifacts),
            **{f"GRADSERVE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "--port", "0", "--workers", str(workers)],
                cwd=ROOT,
                env=environment,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 20,
    ) -> tuple[int, bytes]:
        """Status and body of the answer to one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        status, body = self.request("GET", path)
        return status, json.loads(body)

    def post(self, path: str, document: object) -> tuple[int, Any]:
        """Status and JSON of a POST of JSON."""
        body = json.dumps(document).encode()
        status, answer = self.request("POST", path, body, {"Content-Type": "application/json"})
        return status, json.loads(answer)

    def classify(self, image: bytes, query: str = "") -> tuple[int, Any]:
        """Status and JSON of a picture's classification."""
        status, answer = self.request(
            "POST", f"/classify{query}", image, {"Content-Type": "image/png"}
        )
        return status, json.loads(answer)

    def wait_ready(self) -> Self:
        """Wait until it says that it is ready."""
        self.wait_until(lambda: self._find_port() and self.is_ready(), "it is ready")
        return self

    def wait_listening(self) -> Self:
        """Wait until it has a port, ready or not."""
        self.wait_until(self._find_port, "it listens")
        return self

    def is_ready(self) -> bool:
        """Does it say that it is ready?"""
        try:
            return self.request("GET", "/health/ready", timeout=5)[0] == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def wait_until(self, condition: Any, what: str, seconds: float = START_SECONDS) -> float:
        """Wait for a condition; the seconds that took. Fails with the log otherwise."""
        started = time.monotonic()
        while not condition():
            elapsed = time.monotonic() - started
            if self.process.poll() is not None or elapsed > seconds:
                raise AssertionError(f"not within {elapsed:.1f} s: {what}\n{self.log.read_text()}")
            time.sleep(0.02)
        return time.monotonic() - started

    def _find_port(self) -> int:
        for line in self.log.read_text().splitlines():
            if "serving on http" in line:
                self.port = int(line.partition("127.0.0.1:")[2].split()[0])
        return self.port
