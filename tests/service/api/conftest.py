"""A running service over small functions, known by heart (see ``tests.tiny_artifacts``)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.tiny_artifacts import (
    publish_curve,
    publish_function,
    publish_mixed,
    publish_scalar,
)


@pytest.fixture(scope="session")
def function_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """quadratic, bowl, mixed and curve-mlp. Not to be written to."""
    root = tmp_path_factory.mktemp("functions")
    publish_function(root)
    publish_scalar(root)
    publish_mixed(root)
    publish_curve(root)
    return root


@pytest.fixture(scope="session")
def functions(function_artifacts: Path) -> Iterator[TestClient]:
    """A service over them, with a low limit of numbers."""
    settings = Settings(artifacts=function_artifacts, max_numbers=10_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for _ in range(500):
            if client.get("/health/ready").status_code == 200:
                break
            time.sleep(0.01)
        yield client
