"""What the processes of one service tell each other, through a page of shared memory."""

import math
import mmap
import os
import struct
import time
from dataclasses import dataclass, field

_SLOT = struct.Struct("dq")  # time of the last sign of life (monotonic, s), open connections


class Board:
    """One slot a worker: when it last ran, and how many connections it holds.

    Made before forking. A slot is written by its worker alone, or by the parent before it starts.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, _SLOT.size * workers)

    def write(self, worker: int, connections: int) -> None:
        """Show that ``worker`` runs, and holds so many connections."""
        _SLOT.pack_into(self._memory, worker * _SLOT.size, time.monotonic(), connections)

    def silence(self, worker: int) -> float:
        """Seconds since the last sign of life of ``worker``."""
        return time.monotonic() - self._read(worker)[0]

    def fewest_connections(self, besides: int, within: float) -> float:
        """Connections of the least loaded other worker that ran ``within`` seconds, if any."""
        oldest = time.monotonic() - within
        slots = (self._read(worker) for worker in range(self.workers) if worker != besides)
        return min((connections for beat, connections in slots if beat >= oldest), default=math.inf)

    def _read(self, worker: int) -> tuple[float, int]:
        beat, connections = _SLOT.unpack_from(self._memory, worker * _SLOT.size)
        return beat, connections


@dataclass
class Lifecycle:
    """Which worker this is, and where in its life: ``draining`` is set once and never cleared."""

    board: Board = field(default_factory=lambda: Board(1))
    worker: int = 0
    parent: int = field(default_factory=os.getppid)
    draining: bool = False
