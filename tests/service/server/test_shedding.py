"""Which requests are refused without being parsed: those that can be read in one way only."""

import asyncio
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.runtime.queue import Queue
from service.server.shedding import LOOK_SECONDS, MAX_PLAIN_BYTES, Check, Shedder
from service.web.metrics import REQUESTS
from service.web.refusal import Refusals

REFUSALS = Refusals(frozenset({"/classify", "/explain"}))

PLAIN = (
    b"POST /classify?top_k=3 HTTP/1.1\r\nHost: localhost:8000\r\nContent-Type: image/png\r\n"
    b"Connection: keep-alive\r\nContent-Length: 5\r\n\r\nabcde"
)


class Requests:
    """What httptools makes of some bytes."""

    def __init__(self) -> None:
        self.begun = self.complete = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.complete += 1

    @classmethod
    def of(cls, data: bytes) -> "Requests | None":
        """None if it is not HTTP, or asks for another protocol."""
        found = cls()
        try:
            httptools.HttpRequestParser(found).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        return found


def shedder(depth: int, *checks: Check) -> Shedder:
    async def make() -> Shedder:
        return Shedder(Queue(depth, 1), REFUSALS, checks)

    return asyncio.run(make())


FULL = shedder(0)


def test_a_plain_request_is_refused_while_there_is_no_room() -> None:
    assert FULL.refuses_unparsed(PLAIN)
    assert FULL.refuses_unparsed(PLAIN.replace(b"/classify", b"/explain"))
    assert not shedder(1).refuses_unparsed(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"abcde", b"abcd"),
        (b"abcde", b"abcdef"),
        (b"POST", b"GET"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/classify", b"/predict"),
        (b"/classify", b"http://localhost/classify"),
        (b"keep-alive", b"close"),
        (b"keep-alive", b"keep-alive, upgrade"),
        (b"Connection: keep-alive", b"Expect: 100-continue"),
        (b"Connection: keep-alive", b"Transfer-Encoding: chunked"),
        (b"Connection: keep-alive", b"Upgrade: h2c"),
        (b"Connection: keep-alive", b"content-length: 5"),
        (b"Connection: keep-alive", b"X-Length: content-length: 0"),
        (b"Content-Length: 5", b"Content-Length : 5"),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 5, 5"),
        (b"Content-Length: 5", b"Content-Length: 5\r\n 0"),
        (b"Content-Length: 5", b"X: \nContent-Length: 5"),
        (b"Content-Length: 5\r\n", b""),
    ],
)
def test_any_other_is_left_to_the_parser(old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert not FULL.refuses_unparsed(PLAIN.replace(old, new))


def test_a_long_head_is_left_to_the_parser() -> None:
    assert not FULL.refuses_unparsed(PLAIN.replace(b"top_k=3", b"a" * MAX_PLAIN_BYTES))


def test_who_may_not_ask_is_not_refused_for_load() -> None:
    def has_key(scope: Any) -> bool:
        return (b"x-api-key", b"right") in scope["headers"]

    full = shedder(0, has_key)
    assert not full.refuses_unparsed(PLAIN)
    assert not full.refuses_unparsed(PLAIN.replace(b"\r\nCon", b"\r\nX-API-Key: wrong\r\nCon", 1))
    assert full.refuses_unparsed(PLAIN.replace(b"\r\nCon", b"\r\nX-API-Key: right \r\nCon", 1))


def test_the_metrics_are_told_of_each_refusal() -> None:
    counter = REQUESTS.labels("/explain", "POST", 429, "", "")

    async def refuse() -> None:
        full = Shedder(Queue(0, 1), REFUSALS)
        assert full.refuses_unparsed(PLAIN.replace(b"/classify", b"/explain"))
        request = PLAIN.replace(b"/classify", b"/explain")
        request = request.replace(b"Connection", b"X-Request-Id: mine\r\nConnection")
        answer = full.answer(request)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nx-request-id: mine\r\n" in answer
        await asyncio.sleep(3 * LOOK_SECONDS)

    before = counter._value.get()
    asyncio.run(refuse())
    assert counter._value.get() == before + 1


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_what_is_refused_ends_where_the_parser_says(data: Any) -> None:
    pieces = [
        b"\r\n",
        b"\n",
        b" ",
        b"0",
        b":",
        b"\x00",
        b"Content-Length: 5\r\n",
        b"chunked",
        PLAIN,
    ]
    changed = PLAIN
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(start, min(len(changed), start + 12)))
        changed = changed[:start] + data.draw(st.sampled_from(pieces)) + changed[end:]
    if FULL.refuses_unparsed(changed):
        found = Requests.of(changed)
        assert found is None or (found.begun, found.complete) == (1, 1)
