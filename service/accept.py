"""Accepting connections so that the workers share them evenly.

All workers wait on one listening socket. Left to the event loop, whoever wakes first takes every
connection in the queue, and sixteen clients may all land on one of two cores. So a worker takes one
connection a turn, and one that already has more than another stands back for a moment. A socket of
each worker's own (SO_REUSEPORT) would spread them by chance, and lose those queued for a dead one.
"""

import asyncio
import socket
from collections.abc import Callable

from service.lifecycle import Board

STAND_BACK_SECONDS = 0.002
ALIVE_SECONDS = 1.0


class Acceptor:
    """Takes connections from ``listener`` until closed. The counterpart of an asyncio server."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        count_connections: Callable[[], int],
        board: Board,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._count = count_connections
        self._board = board
        self._connecting: set[asyncio.Task[object]] = set()
        self._closed = False
        self._watch(self._accept_or_stand_back)

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Closed is closed: connections are counted elsewhere."""

    def _watch(self, callback: Callable[[], None]) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, callback)

    def _accept_or_stand_back(self) -> None:
        mine = self._count() + len(self._connecting)
        if mine > self._board.fewest_connections(ALIVE_SECONDS):
            # Whoever has fewer takes it meanwhile; if nobody does, the next look accepts it.
            self._loop.remove_reader(self._listener)
            self._loop.call_later(STAND_BACK_SECONDS, self._watch, self._accept)
        else:
            self._accept()

    def _accept(self) -> None:
        self._watch(self._accept_or_stand_back)
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker took it, or the client has left
        except OSError:
            # Out of descriptors: those in use have to be closed first.
            self._loop.remove_reader(self._listener)
            self._loop.call_later(0.1, self._watch, self._accept_or_stand_back)
            return
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make_protocol, connection)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
