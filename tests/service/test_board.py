"""What one process says of itself, read by another at any moment."""

import os
import signal
import time

from service.lifecycle import Board


def test_a_beat_is_never_seen_half_written() -> None:
    board = Board(2)
    board.write(0, 3)
    board.write(1, 5)
    child = os.fork()
    if child == 0:
        while True:
            board.write(0, 3)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            # A worker that seems silent is killed, however well it is.
            assert board.seconds_since_heartbeat(0) < 60
            assert board.fewest_connections(besides=1, within=60) == 3
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
