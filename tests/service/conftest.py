"""A running service over tiny artifacts."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.tiny_artifacts import publish_all


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one artifact of each kind. Not to be written to."""
    root = tmp_path_factory.mktemp("artifacts")
    publish_all(root)
    return root


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Starts a service over a folder, with settings, and waits until it has looked there."""
    with ExitStack() as stack:

        def start(root: Path, **settings: Any) -> TestClient:
            app = create_app(Settings(artifacts=root, **settings))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            keys = settings.get("api_key_file")
            headers = {"x-api-key": keys.read_text().split()[0]} if keys else {}
            for _ in range(3000):
                ready = client.get("/health/ready", headers=headers).text
                if "being loaded" not in ready and "being verified" not in ready:
                    return client
                time.sleep(0.02)
            raise AssertionError("the service did not finish loading within a minute")

        yield start


@pytest.fixture(scope="session")
def client(artifacts: Path) -> Iterator[TestClient]:
    """A service with default settings over the shared artifacts."""
    with TestClient(create_app(Settings(artifacts=artifacts)), raise_server_exceptions=False) as c:
        for _ in range(3000):
            if c.get("/health/ready").status_code == 200:
                break
            time.sleep(0.02)
        yield c
