"""What an application sends, and what is written; what arrives, and what it receives."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from service.server.exchange import Exchange

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """Was it closed?"""
        return self.closed

    def close(self) -> None:
        """Note it."""
        self.closed = True


def exchange(transport: Transport, method: str = "GET", **options: bool) -> Exchange:
    scope = {"type": "http", "method": method, "headers": []}
    settings = {"expects_continue": False, "keep_alive": True, **options}
    date = [(b"date", b"today")]
    return Exchange(scope, transport, FlowControl(transport), date, lambda: None, **settings)


def answer(application: Application, method: str = "GET", **options: bool) -> Transport:
    """What is written of an answer."""
    transport = Transport()
    given = exchange(transport, method, **options)
    given.more_body = False
    asyncio.run(given.run(application))
    return transport


def test_head_and_body_are_written_at_once() -> None:
    (written,) = answer(PlainTextResponse("abc")).written
    head, body = written.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: today\r\n")
    assert b"content-length: 3" in head
    assert body == b"abc"


def test_a_head_is_asked_for_alone() -> None:
    (written,) = answer(PlainTextResponse("abc"), "HEAD").written
    assert b"content-length: 3" in written
    assert written.endswith(b"\r\n\r\n")


def test_a_body_of_unknown_length_comes_in_chunks() -> None:
    transport = answer(StreamingResponse(iter(["ab", "", "c" * 20])))
    head, body = b"".join(transport.written).split(b"\r\n\r\n", 1)
    assert b"transfer-encoding: chunked" in head
    assert body == b"2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n"
    assert not transport.closed


@pytest.mark.parametrize("kept", [False, True])
def test_the_connection_is_closed_once_either_side_says_so(kept: bool) -> None:
    response = PlainTextResponse("", headers={"connection": "Close"} if kept else None)
    transport = answer(response, keep_alive=kept)
    assert transport.closed
    assert transport.written[0].lower().count(b"\r\nconnection: close\r\n") == 1


def sends(*messages: Message) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
SIZED: Message = START | {"headers": [(b"content-length", b"3")]}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (body(b"abc"),),
        (START | {"headers": [(b"x-name", b"a\r\nset-cookie: b")]}, body(b"")),
        (START | {"headers": [(b"x-name", b"a\nb")]}, body(b"")),
        (START | {"headers": [(b"x\r", b"a")]}, body(b"")),
        (START | {"headers": [(b"x", b"a\0")]}, body(b"")),
    ],
)
def test_what_is_no_answer_is_500(messages: tuple[Message, ...]) -> None:
    transport = answer(sends(*messages))
    (written,) = transport.written
    assert written.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in written
    assert transport.closed


@pytest.mark.parametrize(
    "messages",
    [
        (SIZED, body(b"ab")),
        (SIZED, body(b"abcd")),
        (SIZED, body(b"ab", more=True), body(b"cd")),
        (SIZED, START),
        (SIZED, body(b"ab", more=True)),
    ],
)
def test_a_body_of_another_length_ends_the_connection(messages: tuple[Message, ...]) -> None:
    transport = answer(sends(*messages))
    written = b"".join(transport.written)
    assert written.startswith(b"HTTP/1.1 200 ")
    assert len(written.partition(b"\r\n\r\n")[2]) < 3
    assert transport.closed


def test_pieces_that_arrive_are_received_together() -> None:
    async def scenario() -> tuple[Message, ...]:
        asked = exchange(Transport())
        asked.add(b"ab")
        asked.add(b"c")
        asked.tell()
        first = await asked.receive()
        waiting = [asyncio.create_task(asked.receive()) for _ in range(2)]
        await asyncio.sleep(0)
        asked.add(b"d")
        asked.more_body = False
        asked.tell()
        rest = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        asked.disconnected = True
        return (first, *rest, await asked.receive())

    first, second, third, last = asyncio.run(scenario())
    assert first == {"type": "http.request", "body": b"abc", "more_body": True}
    assert second == {"type": "http.request", "body": b"d", "more_body": False}
    assert third["body"] == b""
    assert last == {"type": "http.disconnect"}


def test_continue_is_written_when_the_body_is_wanted() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await PlainTextResponse("abc")(scope, receive, send)

    async def scenario() -> list[bytes]:
        transport = Transport()
        asked = exchange(transport, expects_continue=True)
        asked.tell()
        await asked.run(application)
        return transport.written

    first, second = asyncio.run(scenario())
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 200 ")
