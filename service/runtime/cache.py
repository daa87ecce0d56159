"""The copies of an object store's artifacts on this machine, and which process keeps them.

Every worker of every service with the same store and cache has one ``Cache``. Whichever gets the
lock in the folder runs ``service.runtime.mirror``, which copies; when that worker ends, another
gets the lock. The registry finds what was copied as it finds anything in a folder.
"""

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import IO, cast

from contract.store import MANIFEST_FILE
from contract.system import lock, lock_shared
from service.runtime.mirror import STATE, Options, State, read_state
from service.runtime.observer import Observer
from service.runtime.own_process import command
from service.settings import Settings

log = logging.getLogger("gradserve")

LOCK = ".lock"
FIRST_LOOK_SECONDS = 30.0  # that a start waits for the first look at the store
RESTART_SECONDS = 5.0  # before a process that ended is started again
POLL_SECONDS = 0.1


class Cache:
    """Copies of ``address`` in ``folder``. ``close`` may be called while another thread waits."""

    def __init__(self, address: str, settings: Settings, observer: Observer) -> None:
        self.address = address
        self.folder = settings.folder
        self.observer = observer
        self._options = Options(
            address, str(self.folder), settings.keep, settings.pin, settings.store_seconds
        )
        self._mutex = threading.Lock()
        self._closed = False
        self._state = State()
        self._trouble = ""  # with this machine's folder
        self._lock: BufferedWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._held: dict[Path, BufferedReader] = {}

    def run_once(self) -> None:
        """See that one process copies, and report its state. Takes a few milliseconds."""
        try:
            with self._mutex:
                self._run()
            trouble = ""
        except OSError as error:
            trouble = (
                f"{error.filename or self.folder}: {error.strerror}; "
                "name a folder that can be written to with GRADSERVE_CACHE"
            )
        state = read_state(self.folder)
        seen = state.looked > 0 or trouble
        if seen and (state, trouble) != (self._state, self._trouble):
            self._report(state, trouble)
        self._state, self._trouble = state, trouble

    def first_look(self, seconds: float = FIRST_LOOK_SECONDS) -> None:
        """Wait until whoever copies has looked at the store once, or for so long."""
        deadline = time.monotonic() + seconds
        while True:
            self.run_once()
            if self._state.looked or self._trouble or self._closed:
                return
            if time.monotonic() >= deadline:
                log.warning("no look at %s has ended within %g s", self.address, seconds)
                return
            time.sleep(POLL_SECONDS)

    def trouble(self) -> str:
        """Why nothing may have been copied yet; empty if nothing is known to be wrong."""
        if self._trouble or self._state.trouble:
            return self._trouble or self._state.trouble
        if not self._state.looked:
            return f"{self.address} has not been looked at yet"
        return "; ".join(self._state.refused.values())

    def hold(self, folders: Mapping[str, Path]) -> None:
        """Keep the versions in these folders, which are loaded, from being pruned."""
        wanted = set(folders.values())
        for folder in self._held.keys() - wanted:
            self._held.pop(folder).close()
        for folder in wanted - self._held.keys():
            with suppress(OSError):  # it has been taken away, or is being
                stream = (folder / MANIFEST_FILE).open("rb")
                self._held[folder] = stream
                lock_shared(stream)

    def open(self) -> None:
        """Begin anew after ``close``."""
        self._closed = False

    def close(self) -> None:
        """Stop copying and let another process do it."""
        with self._mutex:
            self._closed = True
            self._release()

    def _release(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._start_at = 0.0

    def _run(self) -> None:
        """Run the process that copies if the lock can be had. Raises OSError."""
        if self._process is not None and self._process.poll() is not None:
            log.error("the process that copies from %s ended; starting another", self.address)
            self._release()
            self._start_at = time.monotonic() + RESTART_SECONDS
        if self._process is not None or self._closed or time.monotonic() < self._start_at:
            return
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stream = (self.folder / LOCK).open("ab")
            try:
                lock(stream)
            except OSError:  # another process has it
                stream.close()
                return
            self._lock = stream
            (self.folder / STATE).unlink(missing_ok=True)  # of whoever had the lock before
        self._process = self._start(self._lock)

    def _start(self, held: BufferedWriter) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, our own code
            command("service.runtime.mirror"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the service's to handle
            # The lock is theirs too: it is let go when both have ended.
            pass_fds=() if os.name == "nt" else (held.fileno(),),
        )
        given = cast(IO[bytes], process.stdin)
        with suppress(OSError):  # it has ended, which the next look will show
            given.write(json.dumps(asdict(self._options)).encode() + b"\n")
            given.flush()
        return process

    def _report(self, state: State, trouble: str) -> None:
        """Set the metrics; log what is new, in the one process that copies."""
        self.observer.store_seen(
            not (state.trouble or trouble), state.succeeded, len(state.refused)
        )
        if trouble and trouble != self._trouble:
            log.error("nothing can be copied from %s: %s", self.address, trouble)
        if self._process is None:
            return
        if state.trouble and state.trouble != self._state.trouble:
            log.error("the object store: %s; what is loaded goes on serving", state.trouble)
        if self._state.trouble and not state.trouble:
            log.info("the object store %s can be read again", self.address)
        for name in state.refused.keys() - self._state.refused.keys():
            log.error("not copied: %s", state.refused[name])


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        cast(IO[bytes], process.stdin).close()
    process.kill()
    process.wait()
