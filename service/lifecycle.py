"""What the processes of one service share: heartbeats and connection counts, in shared memory."""

import math
import mmap
import os
import time
from dataclasses import dataclass, field

_BYTES = 8  # of one figure


class Board:
    """One slot a worker: its last heartbeat and its number of connections.

    Made before forking. A slot is written by its worker alone, or by the parent before it starts.
    Each figure is written in one store. ``struct.pack_into`` would write zeros first, and a reader
    at that moment would take the worker for hung.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        memory = memoryview(mmap.mmap(-1, 2 * _BYTES * workers))
        half = _BYTES * workers
        self._beats = memory[:half].cast("d")  # last heartbeat (monotonic, s)
        self._connections = memory[half:].cast("q")

    def write(self, worker: int, connections: int) -> None:
        """Record a heartbeat of ``worker`` and its number of connections."""
        self._connections[worker] = connections
        self._beats[worker] = time.monotonic()

    def seconds_since_heartbeat(self, worker: int) -> float:
        """Seconds since the last heartbeat of ``worker``."""
        return time.monotonic() - self._beats[worker]

    def fewest_connections(self, besides: int, within: float) -> float:
        """Connections of the least loaded other worker with a heartbeat in the last ``within`` s.

        Infinity if there is none.
        """
        oldest = time.monotonic() - within
        return min(
            (
                self._connections[worker]
                for worker in range(self.workers)
                if worker != besides and self._beats[worker] >= oldest
            ),
            default=math.inf,
        )


@dataclass
class Lifecycle:
    """Which worker this process is, and whether it is draining: set once and never cleared."""

    board: Board = field(default_factory=lambda: Board(1))
    worker: int = 0
    parent: int = field(default_factory=os.getppid)
    draining: bool = False
