"""Bodies that arrive in pieces, end early, or are too much."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from service.web.body import read_body
from service.web.errors import Busy, ClientGone, TooLarge
from service.web.state import Buffers

GONE = {"type": "http.disconnect"}


def piece(content: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


def read(buffers: Buffers, *messages: dict[str, Any], headers: Any = (), limit: int = 100) -> bytes:
    waiting = list(messages)

    async def receive() -> Any:
        return waiting.pop(0)

    state = {"services": SimpleNamespace(buffers=buffers)}
    scope = {"type": "http", "headers": list(headers), "state": state}
    return asyncio.run(read_body(Request(scope, receive), limit))


def test_joins_the_pieces_and_frees_what_they_took() -> None:
    buffers = Buffers(limit=10)
    assert read(buffers, piece(b"ab"), piece(b""), piece(b"cd"), piece(b"", False)) == b"abcd"
    assert read(buffers, piece(b"x" * 100, False)) == b"x" * 100  # nothing has to be kept
    assert buffers.used == 0


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([GONE], ClientGone),
        ([piece(b"ab"), GONE], ClientGone),
        ([piece(b"x" * 101, False)], TooLarge),
        ([piece(b"x" * 60), piece(b"x" * 60)], TooLarge),
        ([piece(b"x" * 30), piece(b"x" * 30)], Busy),
    ],
)
def test_gives_up_and_frees_what_was_taken(messages: Any, error: type[Exception]) -> None:
    buffers = Buffers(limit=50 if error is Busy else 1000)
    with pytest.raises(error):
        read(buffers, *messages)
    assert buffers.used == 0


def test_a_length_over_the_limit_is_refused_unread() -> None:
    for length in (b"101", b"9" * 40):
        with pytest.raises(TooLarge):
            read(Buffers(0), headers=[(b"content-length", length)])
