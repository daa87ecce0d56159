"""No path, address or name from a request reaches a file, a socket or a process.

Python tells an audit hook of every file that is opened, every folder listed, every connection made
and every process started. The service runs in this process here, so that the hook hears of its own.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.hostile.wire import CANARY
from tests.tiny_artifacts import png

# Folders and files of the server's own are read (static files, versions); nothing else happens.
READING = {"open", "os.listdir", "os.scandir"}
ACTING = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod",
    "os.truncate", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.putenv",
    "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.bind", "urllib.Request", "ctypes.dlopen", "pickle.find_class", "marshal.loads",
    "compile", "exec", "import", "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp",
}  # fmt: skip


class Ear:
    """What the audit hook has heard while ``open``. A hook stays for good, so there is one."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...]]] = []
        self.open = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.open and (event in READING or event in ACTING):
            self.heard.append((event, arguments))


ear = Ear()


@pytest.fixture(scope="module")
def client(hostile_artifacts: Path) -> Iterator[TestClient]:
    """A service that has imported all that it imports at first use, and looks at no folder."""
    settings = Settings(artifacts=hostile_artifacts, watch_seconds=60)
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        ask_everything(running, "curve-mlp")
        yield running


def ask_everything(client: TestClient, name: str) -> list[int]:
    """Put ``name`` wherever a request may hold text; the statuses."""
    model = {"x": 1, "model": name}
    picture = {"content-type": "image/png", "x-forwarded-host": name, "referer": name}
    tensor = {"name": name, "shape": [1], "datatype": "FP64", "data": [1]}
    file = {"file": (name, png((9, 0, 0)), name)}
    form = file | {"url": (None, name), "path": (None, name)}
    answers = [
        client.post("/predict", json=model),
        client.post("/gradient", json=model),
        client.post("/w10-gradient", json={"naming": name}),
        client.post("/classify", params={"model": name}, content=b"x", headers=picture),
        client.post("/classify", files=file),
        client.post("/classify", files=form),
        client.post("/classify", content=name.encode(), headers={"content-type": "image/svg+xml"}),
        client.post("/explain", params={"label": name}, files=file),
        client.post("/explain", content=name.encode(), headers={"content-type": name[:50]}),
        client.post("/v2/models/curve-mlp/infer", json={"inputs": [tensor]}),
        *(
            client.get(f"{prefix}{name}{suffix}", headers={"cookie": f"a={name}", "origin": name})
            for prefix, suffix in [
                ("/models/", ""),
                ("/models/", "/summary"),
                ("/models/", "/report"),
                ("/models/curve-mlp/", ""),
                ("/models/curve-mlp/report/", ""),
                ("/v2/models/", ""),
                ("/v2/models/curve-mlp/versions/", ""),
                ("/health/", ""),
                ("/", ""),
            ]
        ),
    ]
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize(
    "name",
    [
        CANARY,
        f"../{CANARY}",
        f"..%2f..%2f{CANARY}",
        f"/etc/{CANARY}",
        f"file:///etc/{CANARY}",
        f"http://127.0.0.1:1/{CANARY}",
        f"\\\\127.0.0.1\\{CANARY}",
        f"curve-mlp/../{CANARY}",
        f"curve-mlp\0{CANARY}".replace("\0", "%00"),
        f"${{jndi:ldap://127.0.0.1/{CANARY}}}",
        f"$(touch {CANARY})",
        f"{{{{{CANARY}}}}}",
    ],
)
def test_text_of_a_request_opens_nothing(client: TestClient, name: str) -> None:
    ear.heard.clear()
    ear.open = True
    try:
        statuses = ask_everything(client, name)
    finally:
        ear.open = False
    assert max(statuses) < 500
    assert {200, 404, 422} <= set(statuses)  # the requests went all the way
    for event, arguments in ear.heard:
        assert CANARY not in repr(arguments), (event, arguments)
        assert event in READING, (event, arguments)
        if event == "open":
            assert not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), arguments


def test_the_ear_hears(tmp_path: Path) -> None:
    ear.heard.clear()
    ear.open = True
    try:
        (tmp_path / CANARY).write_text("x")
    finally:
        ear.open = False
    assert any(event == "open" and CANARY in str(found[0]) for event, found in ear.heard)
