"""Standard error that never blocks: records that its reader does not take are dropped and counted.

A pipe holds 64 KiB. When nobody reads it, an ordinary write blocks for ever, and with it the event
loop. Making standard error non-blocking would change it for every process that shares it, such as
the shell; so a pipe or a terminal is opened again, for this process alone.
"""

import errno
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

# A write of so much to a pipe is taken whole or not at all (POSIX says 512; Linux has 4096).
ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)
_NOTE = b"%d log records were dropped: standard error was not being read\n"


class DroppingStream:
    """Writes to ``stream``. Only if that is a pipe, a terminal or a socket can it drop anything.

    ``count_dropped`` is told how many records were dropped.
    """

    def __init__(
        self, stream: TextIO, count_dropped: Callable[[int], None] = lambda _: None
    ) -> None:
        self._stream = stream
        self._count_dropped = count_dropped
        self._dropped = 0
        self._socket: socket.socket | None = None
        self._descriptor = -1
        self._shared = False  # the descriptor is shared with other processes, and may block
        with suppress(OSError, ValueError, AttributeError):
            number = stream.fileno()
            mode = os.fstat(number).st_mode
            if sys.platform == "win32":
                return  # select takes sockets only
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(number))
            elif stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(number)):
                self._descriptor, self._shared = _reopen(number)

    def write(self, text: str) -> int:
        """Write the record ``text``, or count it as dropped."""
        self.write_all([text.encode("utf-8", "backslashreplace")])
        return len(text)

    def flush(self) -> None:
        """Flush the original stream; nothing is buffered here."""
        if self._descriptor < 0 and self._socket is None:
            self._stream.flush()

    def write_all(self, records: Sequence[bytes]) -> None:
        """Write records, many at a time, or count those that are dropped."""
        if self._descriptor < 0 and self._socket is None:
            self._stream.write(b"".join(records).decode())
            return
        done = 0
        while done < len(records):
            begun, data = done, b""
            if self._dropped:
                data = _NOTE % self._dropped
            while done == begun or (
                done < len(records) and len(data) + len(records[done]) <= ATOMIC_BYTES
            ):
                data += records[done]
                done += 1
            if not self._send_whole(data):
                dropped = len(records) - begun
                self._dropped += dropped
                self._count_dropped(dropped)
                return
            self._dropped = 0

    def _send_whole(self, data: bytes) -> bool:
        starts = range(0, len(data), ATOMIC_BYTES)
        return all(self._send(data[start : start + ATOMIC_BYTES]) for start in starts)

    def _send(self, data: bytes) -> bool:
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT) == len(data)
            if self._shared and not select.select((), (self._descriptor,), (), 0)[1]:
                return False
            return os.write(self._descriptor, data) == len(data)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return False  # full, or its reader has gone


def _reopen(number: int) -> tuple[int, bool]:
    """A non-blocking descriptor of our own and False, or the shared one and True."""
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{number}", flags), False
    except OSError:  # there is no /proc, or it belongs to another user
        return number, True
