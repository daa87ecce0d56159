"""The service's image, if there is one: what is in it, and that it serves as compose runs it.

docker build -t gradserve .
GRADSERVE_TEST_IMAGE=gradserve make test ARGS=tests/end_to_end/test_container.py
"""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("GRADSERVE_TEST_IMAGE", "")
MEGABYTE = 1_000_000

pytestmark = pytest.mark.skipif(not IMAGE, reason="GRADSERVE_TEST_IMAGE names no image")


def docker(*arguments: str) -> str:
    """Run a docker command; return what it printed."""
    done = subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """The image running, confined as docker-compose.yml confines it."""
    name = docker(
        *("run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges:true", "--publish", "127.0.0.1::8000"),
        *("--volume", f"{ROOT}/artifacts:/app/artifacts:ro", IMAGE),
    )
    yield name
    docker("rm", "--force", name)


def test_the_image_is_small() -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) <= 450 * MEGABYTE


def test_no_pytorch_is_in_it() -> None:
    found = docker("run", "--rm", "--user", "0", IMAGE, "find", "/", "-xdev", "-name", "*torch*")
    assert found == ""


def test_it_runs_as_nobody_in_particular(container: str) -> None:
    assert docker("exec", container, "id", "-u") != "0"


def test_it_becomes_healthy_and_answers(container: str) -> None:
    deadline, health = time.monotonic() + 60, ""
    while health != "healthy":
        assert time.monotonic() < deadline, docker("logs", container)
        health = docker("inspect", "--format", "{{.State.Health.Status}}", container)
        time.sleep(0.2)
    address = docker("port", container, "8000/tcp").splitlines()[0]
    request = urllib.request.Request(
        f"http://{address}/predict",
        data=json.dumps({"x": [0.5]}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert answer["model"] == "curve-mlp"
    assert len(answer["y"]) == 1


def test_it_stops_at_once_and_in_order(container: str) -> None:
    started = time.monotonic()
    docker("stop", "--time", "30", container)
    assert time.monotonic() - started < 20
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
