"""The application under other people's servers: the shipped models answer there as here.

Needs the servers of tests/deploy/servers.txt; ``make test-deploy`` has them in an environment of
their own.
"""

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTORY = "service.app:create_app"
START_SECONDS = 60

# Module that must be installed, and the command, each with two processes where it can have them.
SERVERS = {
    "uvicorn": ["uvicorn", "--factory", FACTORY, "--workers", "2", "--port", "{port}"],
    "gunicorn": [
        "gunicorn",
        f"{FACTORY}()",
        "--worker-class=uvicorn_worker.UvicornWorker",
        "--workers=2",
        "--bind=127.0.0.1:{port}",
    ],
    "granian": [
        "granian",
        "--interface=asgi",
        "--factory",
        "--workers=2",
        "--port={port}",
        FACTORY,
    ],
    "hypercorn": ["hypercorn", "--workers=2", "--bind=127.0.0.1:{port}", f"{FACTORY}()"],
}


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where one of the servers listens, ready."""
    module, *arguments = SERVERS[request.param]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed here; make test-deploy has it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    others = {k: v for k, v in os.environ.items() if not k.startswith("GRADSERVE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *(a.format(port=number) for a in arguments)],
        cwd=ROOT,
        env={**others, "GRADSERVE_ARTIFACTS": str(ROOT / "artifacts")},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready(number):
            assert process.poll() is None, f"{module} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{module} is not ready"
            time.sleep(0.1)
        yield number
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": kind, "x-request-id": "mine-1"} if body is not None else {}
    connection.request(method, path, body, headers)
    return connection.getresponse()


def ready(port: int) -> bool:
    try:
        return ask(port, "GET", "/health/ready").status == 200
    except OSError:
        return False


def test_every_request_finds_the_models(port: int) -> None:
    body = json.dumps({"x": [0.1, 3.0]}).encode()
    for _ in range(20):  # both processes
        answer = ask(port, "POST", "/gradient", body)
        assert answer.status == 200
        assert len(json.load(answer)["gradient"]) == 2


def test_a_photo_is_classified(port: int) -> None:
    photo = (ROOT / "examples" / "cat.jpg").read_bytes()
    answer = ask(port, "POST", "/classify", photo, "image/jpeg")
    assert json.load(answer)["results"][0]["top"][0]["label"] == "cat"


def test_the_request_id_is_set_once(port: int) -> None:
    answer = ask(port, "POST", "/predict", b'{"x": 1}')
    assert answer.msg.get_all("x-request-id") == ["mine-1"]


def test_errors_are_problem_documents(port: int) -> None:
    answer = ask(port, "POST", "/predict", b'{"x": "a"}')
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert ask(port, "GET", "/metrics").status == 200
