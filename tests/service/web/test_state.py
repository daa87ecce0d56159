"""The application under servers that treat its lifespan differently."""

import asyncio
from typing import Any

import pytest

from service.app import create_app
from service.settings import Settings


async def get(app: Any, path: str, **scope: Any) -> int:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    request = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [], "client": None, "server": ("x", 80),
    }  # fmt: skip
    await app(request | scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("server", ["passes state on", "keeps it to itself", "knows none"])
def test_requests_find_what_the_lifespan_made(artifacts, server) -> None:
    async def run() -> list[int]:
        app = create_app(Settings(artifacts=artifacts))
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        started, state = asyncio.Event(), {"theirs": 1}

        async def send(message: dict[str, Any]) -> None:
            assert message["type"] != "lifespan.startup.failed", message
            started.set()

        lifespan: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if server != "knows none":
            lifespan["state"] = state
        task = asyncio.create_task(app(lifespan, messages.get, send))
        await messages.put({"type": "lifespan.startup"})
        await started.wait()
        passed = {"state": dict(state)} if server == "passes state on" else {}
        found = [await get(app, path, **passed) for path in ("/models", "/health/ready")]
        await messages.put({"type": "lifespan.shutdown"})
        await task
        return found

    assert asyncio.run(run()) == [200, 200]


def test_without_a_lifespan_it_says_so_and_is_live(artifacts) -> None:
    app = create_app(Settings(artifacts=artifacts))
    assert asyncio.run(get(app, "/models")) == 503
    assert asyncio.run(get(app, "/health/live")) == 200
