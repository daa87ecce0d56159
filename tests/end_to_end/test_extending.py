"""docs/extending.md: its five minutes are followed to the letter, its other examples are run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text("utf-8")
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
ADDRESS = "localhost:8000"  # the one that the document names
COMMAND = f"{sys.executable} -m gradserve"


def blocks(heading: str) -> list[tuple[str, str]]:
    """Language and text of each block of code under a heading."""
    section = DOCUMENT.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return CODE.findall(section)


def shell(text: str, folder: Path) -> str:
    """What a command prints, with gradserve as it is here."""
    done = subprocess.run(
        ["sh", "-c", re.sub(r"^gradserve ", f"{COMMAND} ", text)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_five_minutes(tmp_path: Path) -> None:
    (_, init), (_, python), (_, commands), (_, curl) = blocks("In five minutes")
    publish, serve = commands.splitlines()
    assert serve == "gradserve serve"
    shell(init, tmp_path)
    assert "def build() -> Publication:" in (tmp_path / "surrogate.py").read_text()
    (tmp_path / "surrogate.py").write_text(python)
    assert "published artifacts/surrogate/1" in shell(publish, tmp_path)
    with ServerProcess(tmp_path / "artifacts") as server:
        server.wait_ready()
        answer = json.loads(shell(curl.replace(ADDRESS, f"127.0.0.1:{server.port}"), tmp_path))
    assert (answer["model"], answer["version"]) == ("surrogate", 1)
    namespace: dict[str, object] = {}
    exec(python, namespace)
    network = namespace["build"]().function  # type: ignore[operator]
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    wanted = {
        "y": network(x).unsqueeze(0),
        "jacobian_y_x": torch.autograd.functional.jacobian(network, x).unsqueeze(0),
    }
    assert set(answer["outputs"]) == set(wanted)
    for name, expected in wanted.items():
        found = torch.tensor(answer["outputs"][name], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_classifier_is_a_publication() -> None:
    ((_, text), *_) = blocks("A classifier of your own")
    body = "".join(f"    {line}\n" for line in text.splitlines())
    namespace = {"net": torch.nn.Identity()}
    exec(f"from gradserve import Publication\ndef build():\n{body}", namespace)
    assert namespace["build"]().classes == ["cat", "dog"]  # type: ignore[operator]


def test_every_reason_is_explained() -> None:
    """The table of what can't be published has a line for each kind of refusal."""
    from training.functions import refusal

    kinds = {
        value
        for name, value in vars(refusal).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    }
    table = re.findall(r"^\| ([^|`]+?) \|", DOCUMENT, re.MULTILINE)
    assert kinds - set(table) == {refusal.OTHER}
