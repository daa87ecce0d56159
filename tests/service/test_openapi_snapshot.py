"""The OpenAPI document as it was last looked at: a change shows here as a readable diff.

``python -m tests.service.test_openapi_snapshot`` writes it anew.
"""

import difflib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import Settings

SNAPSHOT = Path(__file__).with_name("openapi.json")
LOCK = Path(__file__).parents[2] / "locks" / "dev.txt"
WRITERS = ("fastapi", "pydantic", "starlette")  # whose versions decide how it is written


def document() -> str:
    """The document, sorted, without the version of the package."""
    from starlette.testclient import TestClient

    # Not started: the document doesn't depend on the models.
    client = TestClient(create_app(Settings(artifacts=Path("none"), access_log=False)))
    found = client.get("/openapi.json").json()
    found["info"]["version"] = "0"
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def locked(name: str) -> bool:
    """Is the installed version of a package the locked one?"""
    return f"{name}=={version(name)}" in LOCK.read_text("utf-8")


@pytest.mark.skipif(
    not all(map(locked, WRITERS)), reason="other versions than the locked ones write it otherwise"
)
def test_the_document_is_the_one_that_was_looked_at() -> None:
    difference = difflib.unified_diff(
        SNAPSHOT.read_text("utf-8").splitlines(),
        document().splitlines(),
        "tests/service/openapi.json",
        "the document now",
        lineterm="",
    )
    lines = list(difference)
    assert not lines, "\n".join(
        [*lines[:200], "If that is meant: python -m tests.service.test_openapi_snapshot"]
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(document(), "utf-8")
