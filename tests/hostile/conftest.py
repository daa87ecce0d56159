"""The real server, over tiny artifacts whose answers are known by heart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_expected


@pytest.fixture(scope="session")
def hostile_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model that the service expects. Not to be written to."""
    root = tmp_path_factory.mktemp("hostile") / "artifacts"
    publish_expected(root)
    return root


@pytest.fixture(scope="session")
def server(hostile_artifacts: Path) -> Iterator[ServerProcess]:
    """One worker that waits two seconds for a body, so that a lie about its length is found out."""
    with ServerProcess(hostile_artifacts, body_seconds=2, header_seconds=2).wait_ready() as running:
        yield running
        # Nothing of what was sent has made it fail, or brought its worker down.
        log = running.log.read_text()
        assert "Traceback" not in log
        assert "ended (" not in log
