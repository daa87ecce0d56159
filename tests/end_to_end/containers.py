"""Containers for tests: the commands of the engine, and clients that ask all the time."""

import http.client
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

# The image that the tests start; they are skipped without one.
IMAGE = os.environ.get("GRADSERVE_TEST_IMAGE", "")
WAIT_SECONDS = 90


def run(*command: str, seconds: float = 120) -> str:
    """Run a command; what it printed. An AssertionError shows how it failed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def docker(*arguments: str) -> str:
    """Run a docker command; what it printed."""
    return run("docker", *arguments)


def port_of(container: str) -> int:
    """The port of this machine under which a container's port 8000 is published."""
    return int(docker("port", container, "8000/tcp").splitlines()[0].rpartition(":")[2])


def ask(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> tuple[int, bytes]:
    """Status and body of an answer, on a connection of its own; status 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"content-type": kind} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


class Load:
    """Clients that ask for f′ again once answered, each on a connection that it keeps."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []  # what was asked on a connection that had answered before
        self.refused = 0  # new connections that gave nothing
        self._port = port
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered with 200."""
        goal = self.statuses[200] + more
        wait_until(lambda: self.statuses[200] >= goal, f"{more} answers; {self}")

    def __str__(self) -> str:
        return f"{dict(self.statuses)}, {self.refused} refused, lost: {self.lost}"

    def _ask(self) -> None:
        connection, used = self._connect(), False
        while not self._done.is_set():
            try:
                connection.request(
                    "POST", "/gradient", b'{"x": [0.1, 3.0]}', {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used:
                    self.lost.append(repr(error))
                else:
                    self.refused += 1
                connection, used = self._connect(), False
                time.sleep(0.05)
                continue
            self.statuses[answer.status] += 1
            used = not answer.will_close
            if answer.will_close:
                connection = self._connect()
            time.sleep(0.005)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
