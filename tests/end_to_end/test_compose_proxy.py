"""deploy/compose-proxy.yml run for real: three copies of the service behind nginx.

GRADSERVE_TEST_IMAGE=gradserve make test ARGS=tests/end_to_end/test_compose_proxy.py

Needs docker-compose (tried: 1.29, 2.26) or `docker compose`, and BASE_IMAGE if that isn't
python:3.11-slim.
"""

import json
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.containers import IMAGE, Load, ask, docker, run, wait_until

ROOT = Path(__file__).parents[2]
COPIES = 3
CLIENTS = 4
MOST_X = 1000  # a setting in the environment of Compose


def command() -> list[str]:
    """What Compose is called here; nothing if there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = ["docker", "compose"]
    found = shutil.which("docker") and subprocess.run(
        [*plugin, "version"], check=False, capture_output=True
    )
    return plugin if found and found.returncode == 0 else []


pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="GRADSERVE_TEST_IMAGE names no image"),
    pytest.mark.skipif(bool(IMAGE) and not command(), reason="NOT RUN: there is no Compose here"),
]


class Project:
    """The services of the file, on a free port, as a project of their own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        changes = folder / "changes.yml"
        services = {
            "api": {"image": IMAGE},
            # Where containers have no network of their own to the packages, as in CI.
            "proxy": {"image": f"{IMAGE}-proxy", "build": {"network": "host"}},
        }
        changes.write_text(json.dumps({"services": services}))  # which is YAML
        self._name = f"test{uuid.uuid4().hex[:8]}"
        file = ROOT / "deploy" / "compose-proxy.yml"
        self._command = [*command(), "-p", self._name, "-f", str(file), "-f", str(changes)]

    def __call__(self, *words: str) -> str:
        """Run a command of Compose's."""
        environment = ["env", f"GRADSERVE_LISTEN_PORT={self.port}", f"GRADSERVE_MAX_X={MOST_X}"]
        return run(*environment, *self._command, *words, seconds=600)

    def scale(self, copies: int) -> None:
        """Have so many copies, each ready."""
        self("up", "--detach", "--no-build", "--scale", f"api={copies}")
        wait_until(lambda: len(self.copies()) == copies, f"{copies} copies")
        for each in self.copies():
            wait_until(
                lambda each=each: (
                    docker("inspect", "-f", "{{.State.Health.Status}}", each) == "healthy"
                ),
                "a copy is healthy",
            )

    def copies(self) -> list[str]:
        """The containers of the service that run."""
        label = f"label=com.docker.compose.project={self._name}"
        service = "label=com.docker.compose.service=api"
        return docker("ps", "-q", "--filter", label, "--filter", service).split()

    def answered(self, container: str) -> int:
        """How many requests for f′ a copy has logged."""
        done = subprocess.run(
            ["docker", "logs", container], check=True, capture_output=True, text=True
        )
        return (done.stdout + done.stderr).count('"/gradient"')


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("compose"))
    try:
        made("build", "proxy")
        made.scale(COPIES)
        wait_until(lambda: ask(made.port, "GET", "/health/ready")[0] == 200, "the proxy answers")
        yield made
    finally:
        made("down", "--timeout", "5")


def test_all_copies_share_the_load(project: Project) -> None:
    with Load(project.port, CLIENTS) as load:
        load.wait_for(100)
    assert load.lost == []
    assert set(load.statuses) == {200}, load
    wait_until(
        lambda: all(project.answered(each) > 10 for each in project.copies()), "each has answered"
    )


def test_a_killed_copy_costs_only_what_it_was_answering(project: Project) -> None:
    first, *others = project.copies()
    with Load(project.port, CLIENTS) as load:
        load.wait_for(50)
        docker("kill", first)
        load.wait_for(200)
    failed = sum(count for status, count in load.statuses.items() if status != 200)
    assert failed + len(load.lost) + load.refused <= CLIENTS, load
    assert sorted(project.copies()) == sorted(others)
    print(f"a killed copy: {load}")
    project.scale(COPIES)


def test_a_copy_that_is_stopped_costs_nothing(project: Project) -> None:
    with Load(project.port, CLIENTS) as load:
        load.wait_for(50)
        docker("stop", "--time", "30", project.copies()[0])
        load.wait_for(200)
    assert (set(load.statuses), load.lost, load.refused) == ({200}, [], 0), load
    project.scale(COPIES)


def test_a_new_copy_is_found(project: Project) -> None:
    project.scale(1)
    (before,) = project.copies()
    project.scale(2)
    (new,) = set(project.copies()) - {before}
    with Load(project.port, CLIENTS):
        wait_until(lambda: project.answered(new) > 10, "the new copy answers")
    project.scale(COPIES)


def test_settings_reach_the_copies(project: Project) -> None:
    for number, expected in ((MOST_X, 200), (MOST_X + 1, 422)):
        body = json.dumps({"x": [0.5] * number}).encode()
        assert ask(project.port, "POST", "/predict", body)[0] == expected


def test_large_uploads_are_the_services_affair(project: Project) -> None:
    """16 MiB reach it, and more is refused in its words."""
    largest = b"\x89PNG" + bytes(16 * 1024 * 1024 - 4)
    status, answer = ask(project.port, "POST", "/classify", largest, "image/png")
    assert (status, json.loads(answer)["status"]) == (415, 415)
    status, answer = ask(project.port, "POST", "/classify", largest + bytes(100), "image/png")
    assert (status, json.loads(answer)["status"]) == (413, 413)


def test_an_upload_is_not_kept_by_the_proxy(project: Project) -> None:
    """The service refuses by its length what has hardly begun to arrive."""
    with socket.create_connection(("127.0.0.1", project.port), timeout=60) as client:
        head = "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        client.sendall(f"{head}Content-Length: 17000000\r\n\r\n".encode() + bytes(100))
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
