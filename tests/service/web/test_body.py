"""Bodies that arrive in pieces, end early, or are too much."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from service.runtime.errors import QueueFull
from service.runtime.resources import Resources
from service.web.body import read_body
from service.web.errors import ClientGone, TooLarge

GONE = {"type": "http.disconnect"}


def piece(content: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


def read(
    resources: Resources, *messages: dict[str, Any], headers: Any = (), limit: int = 100
) -> bytes:
    """What is read; all memory is free when the task of the request has ended."""
    waiting = list(messages)

    async def receive() -> Any:
        return waiting.pop(0)

    state = {"services": SimpleNamespace(resources=resources)}
    scope = {"type": "http", "headers": list(headers), "state": state}
    try:
        return asyncio.run(read_body(Request(scope, receive), limit))
    finally:
        assert resources.memory.used == resources.bodies.used == 0


def test_joins_the_pieces() -> None:
    resources = Resources(bodies=10)
    assert read(resources, piece(b"ab"), piece(b""), piece(b"cd"), piece(b"", False)) == b"abcd"
    assert read(resources, piece(b"x" * 100, False)) == b"x" * 100  # small and whole: not counted


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([GONE], ClientGone),
        ([piece(b"ab"), GONE], ClientGone),
        ([piece(b"x" * 101, False)], TooLarge),
        ([piece(b"x" * 60), piece(b"x" * 60)], TooLarge),
        ([piece(b"x" * 30), piece(b"x" * 30)], QueueFull),
    ],
)
def test_gives_up_and_frees_what_was_taken(messages: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(Resources(bodies=50 if error is QueueFull else 1000), *messages)


def test_bodies_share_the_memory_with_everything_else() -> None:
    with pytest.raises(QueueFull):
        read(Resources(memory=50), piece(b"x" * 30), piece(b"x" * 30))


def test_a_length_over_the_limit_is_refused_unread() -> None:
    for length in (b"101", b"9" * 40):
        with pytest.raises(TooLarge):
            read(Resources(bodies=0), headers=[(b"content-length", length)])
