"""Accepting connections so that the workers share them evenly.

All workers wait on one listening socket. Left to the event loop, whoever wakes first takes every
connection in the queue, and sixteen clients may all land on one of two cores. So a worker that
already has more connections than another stands back for a moment. A socket of each worker's own
(SO_REUSEPORT) would spread them by chance, and lose those queued for a dead one.
"""

import asyncio
import socket
from collections.abc import Callable

from service.lifecycle import Lifecycle

MAX_AT_ONCE = 64  # connections, before requests get their turn again
STAND_BACK_SECONDS = 0.002
OUT_OF_DESCRIPTORS_SECONDS = 0.1
ALIVE_SECONDS = 1.0


class Acceptor:
    """Takes connections from ``listener`` until closed. The counterpart of an asyncio server."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        count_connections: Callable[[], int],
        lifecycle: Lifecycle,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._count = count_connections
        self._lifecycle = lifecycle
        self._connecting: set[asyncio.Task[object]] = set()
        self._closed = False
        self._watch()

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Closed is closed: connections are counted elsewhere."""

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self, patient: bool = True) -> None:
        """Take what waits, as long as no other worker has fewer connections than this one.

        ``patient`` stands back for those once; if they don't take it meanwhile, this one does.
        """
        if self._closed:
            return
        for _ in range(MAX_AT_ONCE):
            if self._has_more_than_another() and patient:
                self._pause(STAND_BACK_SECONDS, patient=False)
                return
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break  # there is none, or another worker took it, or the client has left
            except OSError:
                # Out of descriptors: those in use have to be closed first.
                self._pause(OUT_OF_DESCRIPTORS_SECONDS, patient=True)
                return
            patient = True
            self._connect(connection)
        self._watch()

    def _pause(self, seconds: float, patient: bool) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._accept, patient)

    def _has_more_than_another(self) -> bool:
        mine = self._count() + len(self._connecting)
        board, worker = self._lifecycle.board, self._lifecycle.worker
        return mine > board.fewest_connections(worker, ALIVE_SECONDS)

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make_protocol, connection)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
