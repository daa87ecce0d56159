"""README keeps its word: its requests give its answers, its commands and files exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.end_to_end.readme_examples import (
    ARTIFACTS,
    README,
    ROOT,
    Example,
    differences,
    read_examples,
    run,
    versions,
)
from tests.server_process import ServerProcess

EXAMPLES = read_examples()
ENDPOINTS = ["/predict", "/gradient", "/classify", "/w10-gradient", "/models", "/summary"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service with the versions that README shows, whatever has been trained since."""
    root = tmp_path_factory.mktemp("artifacts")
    for model, version in versions(EXAMPLES).items():
        shutil.copytree(ARTIFACTS / model / str(version), root / model / str(version))
    with ServerProcess(root) as process:
        process.wait_ready()
        yield f"http://127.0.0.1:{process.port}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.command[:60])
def test_each_request_gives_the_answer_shown(server: str, example: Example) -> None:
    found = differences(json.loads(example.answer), run(example, server))
    assert not found, "\n".join(
        [*found, "(python -m tests.end_to_end.readme_examples --update writes today's)"]
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_has_an_example(endpoint: str) -> None:
    assert any(endpoint in example.command for example in EXAMPLES)


def test_each_make_command_exists() -> None:
    targets = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", README.read_text("utf-8"), re.MULTILINE))
    assert {"serve", "test", "train"} <= targets
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_each_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
