"""What connections read and hold apart from their requests: each of it counted, and bounded."""

import asyncio
from collections.abc import Iterable
from typing import Protocol as Interface

from service.runtime.resources import MemoryBudget
from service.settings import MIB

# Each piece costs a turn of the loop: uvicorn's 64 KiB make a photo of 2.5 MB take 8 % longer.
PIECE_BYTES = 256 * 1024
# What connections hold of bodies before a request sees any of it, and so before it is counted: with
# many connections each holds less.
HELD_BYTES = 16 * MIB
LEAST_PIECE_BYTES = 4 * 1024
# What all connections together may hand over in one turn of the event loop. Requests begin, and
# count what they hold, only in the next one.
TURN_BYTES = 32 * MIB
# Of heads, and of requests that wait for the one before them, in the memory of all requests.
HEADS_BYTES = 32 * MIB
# A head of this size or less is not counted, so that no one's flood of large ones refuses it.
FREE_BYTES = 4 * 1024
# What answers wait for their clients to read; the connection that waits longest goes.
UNSENT_BYTES = 24 * MIB
# Of the connections that wait for their clients, so many go at a time: finding them takes long.
SHARE_THAT_GOES = 16


def piece_bytes(connections: int) -> int:
    """How much of a body is handed to its request at a time."""
    return max(LEAST_PIECE_BYTES, min(PIECE_BYTES, HELD_BYTES // max(1, connections)))


class Connection(Interface):
    """A connection as it is seen here."""

    def may_be_read(self) -> bool:
        """Is it open, and not paused for a reason of its own?"""

    def pause_input(self) -> None:
        """Read no more for now."""

    def resume_input(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Close it, and lose what it has not sent."""

    def waits_since(self) -> float | None:
        """Since when it has waited for its client; None if the client waits for it."""

    def give_way(self) -> None:
        """Refuse what it has begun to send, and close it."""


class Intake:
    """Bytes that were read in this turn of the event loop: over ``TURN_BYTES`` no more are.

    The kernel may report thousands of connections at once, each with a quarter of a megabyte.
    """

    def __init__(self) -> None:
        self._read = 0
        self._paused: list[Connection] = []

    def count(
        self, size: int, connections: Iterable[Connection], loop: asyncio.AbstractEventLoop
    ) -> None:
        """So many bytes were read of one of these ``connections``."""
        if not self._read:
            loop.call_soon(self._next_turn)
        self._read += size
        if self._read > TURN_BYTES and not self._paused:
            self._paused = [each for each in connections if each.may_be_read()]
            for each in self._paused:
                each.pause_input()

    def _next_turn(self) -> None:
        self._read = 0
        if self._paused:
            # Behind what the requests that were read have to do first.
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        for each in paused:
            if each.may_be_read():
                each.resume_input()


class Held:
    """What the connections of a worker hold, and how many there may be.

    Heads count in the memory of all requests, ``memory``, which refuses who goes over it. Of
    answers that are not read, and of connections, the oldest go for new ones: whoever floods the
    service is older than who comes later and asks one thing.
    """

    def __init__(self, memory: MemoryBudget, max_connections: int) -> None:
        self.max_connections = max_connections
        self._heads = MemoryBudget(HEADS_BYTES, within=memory)
        self._unsent: dict[Connection, int] = {}  # in order of waiting
        self._unsent_bytes = 0

    def change(self, before: int, after: int) -> None:
        """One connection holds ``after`` bytes in place of ``before``. Raises QueueFull."""
        if after > before:
            self._heads.take(after - before)
        elif after < before:
            self._heads.release(before - after)

    def unsent(self, connection: Connection, size: int) -> None:
        """So many bytes for ``connection`` wait to be read; those that wait longest may go."""
        self.sent(connection)
        self._unsent[connection] = size
        self._unsent_bytes += size
        while self._unsent_bytes > UNSENT_BYTES:
            slowest = next(iter(self._unsent))
            self.sent(slowest)
            slowest.abort()

    def sent(self, connection: Connection) -> None:
        """All of that was sent, or its connection closed."""
        self._unsent_bytes -= self._unsent.pop(connection, 0)

    def make_room(self, connections: Iterable[Connection]) -> None:
        """Close those that have waited longest for their clients."""
        waiting = [(each.waits_since(), each) for each in connections]
        candidates = [(since, each) for since, each in waiting if since is not None]
        candidates.sort(key=lambda candidate: candidate[0])
        for _, each in candidates[: self.max_connections // SHARE_THAT_GOES]:
            each.give_way()
