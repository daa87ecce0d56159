"""The clients that people have, unchanged, against a running service.

Each has an environment of its own, which ``make test-clients`` makes under ``.venv/clients`` from
the pinned packages in ``requirements/``. Without it the test is skipped, and says so. The variable
CLIENT_ENVIRONMENTS names another folder of them.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import CLIENTS as HOME
from tests.server_process import ServerProcess
from tests.tiny_artifacts import (
    png,
    publish_all,
    publish_function,
    publish_hill,
    publish_mixed,
    publish_scalar,
)

HERE = Path(__file__).parent
CLIENTS = [
    *("umbridge", "tritonclient", "kserve", "mlserver", "tesseract", "jax", "scipy", "pymc"),
    *("qmcpy", "generated"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("clients")
    (found / "blue.png").write_bytes(png((0, 0, 250)))
    return found


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    root = folder / "artifacts"
    publish_all(root)
    for publish in (publish_function, publish_scalar, publish_mixed, publish_hill):
        publish(root)
    publish_hill(root, "valley", 1.0)
    with ServerProcess(root) as server:
        server.wait_ready()
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("client", CLIENTS)
def test_client(client: str, folder: Path, request: pytest.FixtureRequest) -> None:
    python = HOME / client / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{client} is not installed here: make test-clients installs and runs it")
    program = HERE / f"with_{client}.py"
    done = subprocess.run(
        [python, program, request.getfixturevalue("url"), folder / "blue.png"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_client_has_its_packages_pinned() -> None:
    for client in CLIENTS:
        text = (HERE / "requirements" / f"{client}.txt").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines and all("==" in line for line in lines), client


def test_a_client_generated_in_typescript(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    modules = HOME / "typescript" / "node_modules"
    if not modules.exists():
        pytest.skip("typescript is not installed here: make test-clients installs and runs it")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "client.ts").write_bytes((HERE / "with_typescript.ts").read_bytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    url = request.getfixturevalue("url")
    for command in (
        # Else members that have a default would have to be sent.
        [
            *("openapi-typescript", f"{url}/openapi.json", "-o", "schema.d.ts"),
            "--default-non-nullable=false",
        ],
        ["tsc", "--strict", "--target", "es2022", "--module", "nodenext", "client.ts"],
    ):
        run([modules / ".bin" / command[0], *command[1:]], tmp_path)
    run(["node", "client.js", url, folder / "blue.png"], tmp_path)


def run(command: list[str | Path], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
