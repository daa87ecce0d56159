"""The documents keep their word: requests give the answers, commands, files and settings exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
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
WRITTEN = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
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


@pytest.mark.parametrize(
    ("name", "here", "elsewhere", "another"),
    [
        ("probability", 0.9934, 0.9937, 0.93),  # int8 with VNNI, with AVX2
        ("familiar", 0.5756, 0.5946, 0.65),
        ("map", [[0.0007522943]], [[0.00075229316]], [[0.000753]]),
        ("gradient", [2.7597719], [2.7597720], [2.75978]),
    ],
)
def test_other_processors_may_round_differently(name, here, elsewhere, another) -> None:
    assert differences({name: here}, {name: elsewhere}) == []
    assert len(differences({name: here}, {name: another})) == 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_has_an_example(endpoint: str) -> None:
    assert any(endpoint in example.command for example in EXAMPLES)


def test_each_make_command_exists() -> None:
    written = "".join(path.read_text("utf-8") for path in WRITTEN)
    targets = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", written, re.MULTILINE))
    assert {"serve", "test", "train"} <= targets
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_each_linked_file_exists(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) < 200


def test_every_setting_is_in_the_document() -> None:
    text = (ROOT / "docs/deploying.md").read_text("utf-8")
    listed = re.findall(r"^\| `GRADSERVE_([A-Z_]+)`", text, re.MULTILINE)
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


def test_every_address_is_in_the_document() -> None:
    document = json.loads((ROOT / "tests/service/openapi.json").read_text("utf-8"))
    there = {
        f"{method.upper()} {path.replace('/versions/{number}', '')}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    text = (ROOT / "docs/api.md").read_text("utf-8").partition("## Every address")[2]
    listed = set(re.findall(r"`((?:GET|POST) [^`]+)`", text))
    pages = {f"GET {path}" for path in ("/", "/docs", "/redoc", "/openapi.json")}
    assert listed == there | pages


def test_the_plain_form_names_what_is_there() -> None:
    text = README.read_text("utf-8")
    for path in re.findall(r"-r (\S+)", text):
        assert (ROOT / path.replace("\\", "/")).is_file(), path
    assert "Scripts\\python -m gradserve serve" in text
