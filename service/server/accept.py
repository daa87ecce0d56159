"""Accept connections so that the workers share them evenly.

All workers wait on one listening socket. With the event loop's own accepting, the worker that wakes
first takes every connection in the queue: of sixteen clients 14 to 16 landed on one of two workers
(median 15; with this, 8), and the other core was idle. So a worker that has more connections than
another waits a moment before it accepts the next. One socket a worker (SO_REUSEPORT) would spread
connections by chance, and lose those queued for a worker that died.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from service.lifecycle import Lifecycle

MAX_AT_ONCE = 64  # connections, before requests get their turn again
STAND_BACK_SECONDS = 0.002
OUT_OF_DESCRIPTORS_SECONDS = 0.1
ALIVE_SECONDS = 1.0


# A classic BPF program: drop a segment with the flag SYN, keep every other. Only where it is named,
# on Linux: socket(7), SO_ATTACH_FILTER.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 1, 0, 0x02), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
_SO_ATTACH_FILTER = 26


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel complete no more connections.

    Between the last accept and the close a few microseconds pass, in which a connection could be
    made and then reset. Its client asks again after a second, and is refused then.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *line) for line in _NO_SYN)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HP", len(_NO_SYN), ctypes.addressof(buffer))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


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

    async def drain(self) -> None:
        """Accept what waits in the listen queue, which closing would reset, and close."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)
            while True:
                try:
                    connection, _address = self._listener.accept()
                except OSError:
                    break  # there is none, or there are no descriptors left
                self._connect(connection)
            self._listener.close()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def close(self) -> None:
        """Accept no more, and lose what waits. ``drain`` comes first."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Nothing to wait for: connections are counted elsewhere."""

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self, yield_first: bool = True) -> None:
        """Take what waits, as long as no other worker has fewer connections than this one.

        With ``yield_first`` it leaves a connection to such a worker for a moment; if that does not
        take it meanwhile, this one does.
        """
        if self._closed:
            return
        for _ in range(MAX_AT_ONCE):
            if self._has_more_than_another() and yield_first:
                self._pause(STAND_BACK_SECONDS, yield_first=False)
                return
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break  # there is none, or another worker took it, or the client has left
            except OSError:
                # Out of descriptors: those in use have to be closed first.
                self._pause(OUT_OF_DESCRIPTORS_SECONDS, yield_first=True)
                return
            yield_first = True
            self._connect(connection)
        self._watch()

    def _pause(self, seconds: float, yield_first: bool) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._accept, yield_first)

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
