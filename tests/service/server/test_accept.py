"""Who takes a connection, and that none is lost when the listener closes."""

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.lifecycle import Board, Lifecycle
from service.server.accept import Acceptor, refuse_new
from service.server.workers import bind


class Greeter(asyncio.Protocol):
    """Says which worker took the connection."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def connection_made(self, transport: Any) -> None:
        transport.write(self.name)
        transport.close()


def run(test: Callable[[socket.socket, tuple[str, int]], Coroutine[Any, Any, None]]) -> None:
    """A test in an event loop, with a listener and its address."""
    with bind("127.0.0.1", 0) as listener:
        listener.setblocking(False)
        asyncio.run(asyncio.wait_for(test(listener, listener.getsockname()), 20))


def acceptor(
    listener: socket.socket, name: bytes, lifecycle: Lifecycle, connections: int
) -> Acceptor:
    return Acceptor(listener, lambda: Greeter(name), lambda: connections, lifecycle)


async def greeting(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    said = await reader.read()
    writer.close()
    return said


def test_a_worker_with_more_connections_leaves_the_next_to_another() -> None:
    async def test(listener: socket.socket, address: tuple[str, int]) -> None:
        board = Board(2)
        board.write(0, 3)
        board.write(1, 1)
        # Two workers on one loop, each with a descriptor of its own for the one listener.
        fuller = acceptor(listener.dup(), b"fuller", Lifecycle(board, worker=0), 3)
        emptier = acceptor(listener.dup(), b"emptier", Lifecycle(board, worker=1), 1)
        for _ in range(5):
            board.write(1, 1)
            assert await greeting(address) == b"emptier"
        emptier.close()
        assert await greeting(address) == b"fuller"  # after a moment: nobody else took it
        fuller.close()

    run(test)


def test_what_waits_is_taken_before_the_listener_closes() -> None:
    async def test(listener: socket.socket, address: tuple[str, int]) -> None:
        clients = [socket.create_connection(address, timeout=10) for _ in range(20)]
        last = acceptor(listener, b"taken", Lifecycle(), 0)
        last._loop.remove_reader(listener)  # it has not been woken for them
        await last.drain()
        await asyncio.sleep(0.1)
        assert [client.recv(10) for client in clients] == [b"taken"] * len(clients)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)
        for client in clients:
            client.close()

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters on a socket")
def test_the_kernel_makes_no_more_connections_while_those_it_has_are_accepted() -> None:
    with bind("127.0.0.1", 0) as listener:
        early = socket.create_connection(listener.getsockname(), timeout=5)
        refuse_new(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.3)
        accepted, _ = listener.accept()
        early.sendall(b"still here")
        assert accepted.recv(20) == b"still here"
        early.close()
        accepted.close()
