"""The examples in other languages work, those whose tool this machine has."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import CLIENTS, ROOT, ServerProcess

EXAMPLES = ROOT / "examples"
COMMANDS = {
    "requests.sh": ["sh"],
    "with_httpx.py": [sys.executable],
    "with_fetch.mjs": ["node"],
    "WithJava.java": ["java"],
    "with_go.go": ["go", "run"],
    "with_tritonclient.py": [str(CLIENTS / "tritonclient" / "bin" / "python")],
}


# Not programs, or run by tests/clients in environments of their own.
ELSEWHERE = {"README.md", "cat.jpg", "scipy_minimum.py", "pymc_posterior.py"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The service with the shipped models; its log lies elsewhere."""
    root = tmp_path_factory.mktemp("examples") / "artifacts"
    root.symlink_to(ROOT / "artifacts")
    with ServerProcess(root).wait_ready() as running:
        yield running


def test_every_example_is_run_here() -> None:
    files = {path.name for path in EXAMPLES.iterdir()} - ELSEWHERE
    assert files == set(COMMANDS)
    text = (EXAMPLES / "README.md").read_text()
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_prints_derivatives_and_a_cat(server: ServerProcess, name: str) -> None:
    tool, *rest = COMMANDS[name]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed here (tritonclient: make test-clients has it)")
    done = subprocess.run(
        [tool, *rest, str(Path("examples") / name), f"http://127.0.0.1:{server.port}"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    expected = server.post("/gradient", {"x": [3.0]})[1]["gradient"][0]
    assert str(expected)[:6] in done.stdout
    assert "triton" in name or "cat" in done.stdout
