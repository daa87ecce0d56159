"""docs/homework.md is what /homework says of the models in artifacts/.

``python -m tests.service.test_homework_document`` writes it anew, in both languages.
"""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = {"en": ROOT / "docs" / "homework.md", "zh-Hant": ROOT / "docs" / "homework.zh-Hant.md"}
LINES = re.compile(r", (?:lines \d+–\d+|第 \d+–\d+ 行)(?=\))")  # they would change with every edit
LINK = re.compile(r"\]\(([^)]+)\)")
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def document(client: Any, language: str) -> str:
    """The page as Markdown, its links leading into the repository."""
    models = client.get("/models").json()["models"]
    folders = {m["model"]: f"../artifacts/{m['model']}/{m['version']}" for m in models}

    def target(match: re.Match[str]) -> str:
        link = match[1].removeprefix(f"{client.base_url}/").replace("/report/", "/")
        parts = link.removeprefix("models/").split("/")
        if link.startswith("static/"):
            link = f"../service/{link}"
        elif link.partition("#")[0] == "":
            link = "../README.md"
        elif parts[0] in folders:
            file = {"report": "report.md", "summary": "manifest.json"}.get(parts[1], parts[1])
            link = f"{folders[parts[0]]}/{file}"
        return f"]({link})"

    text = LINES.sub("", client.get("/homework/homework.md", params={"lang": language}).text)
    text = LINK.sub(target, text).replace(str(client.base_url), "http://127.0.0.1:8000")
    head, _, rest = text.partition("\n")
    note = "Written by `python -m tests.service.test_homework_document`; don't edit it."
    return f"{head}\n\n<!-- {note} -->\n{rest}"


def started() -> TestClient:
    """The service over the repository's artifacts; enter it, and wait for ``ready``."""
    return TestClient(create_app(Settings(artifacts=ROOT / "artifacts", access_log=False)))


def wait(client: Any) -> None:
    deadline = time.monotonic() + 120
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("language", FILES)
def test_the_document_is_current(language: str) -> None:
    with started() as client:
        wait(client)
        now = document(client, language)
    kept = FILES[language].read_text("utf-8")
    advice = "artifacts or text have changed: python -m tests.service.test_homework_document"
    # Another processor may round the last digit otherwise.
    assert NUMBER.sub("#", now) == NUMBER.sub("#", kept), advice
    numbers = [
        [float(number.replace("−", "-")) for number in NUMBER.findall(text)] for text in (now, kept)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5, abs=1e-7), advice


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_its_links_lead_somewhere(path: Path) -> None:
    links = LINK.findall(path.read_text("utf-8"))
    assert len(links) > 10
    for link in links:
        assert (path.parent / link).exists(), link


def main() -> None:
    """Write both files."""
    with started() as client:
        wait(client)
        for language, path in FILES.items():
            path.write_text(document(client, language), "utf-8")


if __name__ == "__main__":
    main()
