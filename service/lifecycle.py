"""What the processes of one service share: heartbeats and connection counts, in shared memory."""

import math
import mmap
import os
import time
from dataclasses import dataclass, field

_BYTES = 8  # of one figure


class Board:
    """One slot a worker: its last heartbeat, its number of connections, whether it has its models.

    Made before forking. A slot is written by its worker alone, or by the parent before it starts.
    Each figure is written in one store. ``struct.pack_into`` would write zeros first, and a reader
    at that moment would take the worker for hung.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        memory = memoryview(mmap.mmap(-1, 3 * _BYTES * workers))
        size = _BYTES * workers
        self._beats = memory[:size].cast("d")  # last heartbeat (monotonic, s)
        self._connections = memory[size : 2 * size].cast("q")
        self._loaded = memory[2 * size :].cast("q")  # 1 once every model was there

    def write(self, worker: int, connections: int) -> None:
        """Record a heartbeat of ``worker`` and its number of connections."""
        self._connections[worker] = connections
        self._beats[worker] = time.monotonic()

    def seconds_since_heartbeat(self, worker: int) -> float:
        """Seconds since the last heartbeat of ``worker``."""
        return time.monotonic() - self._beats[worker]

    def set_loaded(self, worker: int) -> None:
        """Record that ``worker`` has had every model; for good, whoever takes its place."""
        self._loaded[worker] = 1

    def others_loaded(self, besides: int) -> bool:
        """Has every other worker had its models?"""
        return all(self._loaded[w] for w in range(self.workers) if w != besides)

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
