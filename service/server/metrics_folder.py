"""The folder of memory-mapped files in which the workers count for Prometheus.

A process that writes to a mapped page is killed by SIGBUS if the file system is full. So each
process allocates its files on disk before it maps them, and where that fails the service runs
without metrics.

The folder goes when the service ends, however it ends. Only ``kill -9`` leaves one behind; the next
start removes it. A folder is in use while any process holds the lock on the file in it.
"""

import os
import shutil
import struct
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    with suppress(ImportError):
        import fcntl

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
PREFIX = "gradserve-"
LOCK = "lock"
UNLOCKED_SECONDS = 60.0  # older than this and without a lock: its process ended while making it
# prometheus_client's files, by prefix, with the size for all labels that the service can have.
FILES = {
    "counter": 512 * 1024,
    "histogram": 512 * 1024,
    "gauge_livesum": 64 * 1024,
    "gauge_livemin": 64 * 1024,
    "gauge_livemax": 64 * 1024,
}
GAUGES = tuple(name for name in FILES if name.startswith("gauge"))


class MetricsFolder:
    """The folder; ``path`` is None where none could be made, and ``reason`` says why."""

    def __init__(self, places: tuple[Path, ...] = ()) -> None:
        self.path: Path | None = None
        self.reason = ""
        self._lock = -1
        for place in places or (SHARED_MEMORY, Path(tempfile.gettempdir())):
            if not place.is_dir():
                continue
            sweep(place)
            try:
                self._make(place)
            except OSError as error:
                self.remove()
                self.reason = f"{place}: {error.strerror}"
            else:
                return

    def _make(self, place: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        reserve(self.path, os.getpid())

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def reserve(folder: Path, pid: int) -> None:
    """Allocate the files of a process. Raises OSError, leaving none, where there is no room."""
    try:
        for name, size in FILES.items():
            with (folder / f"{name}_{pid}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        for name in FILES:
            (folder / f"{name}_{pid}.db").unlink(missing_ok=True)
        raise


def trim(folder: Path, pid: int) -> None:
    """Give back what the counters of a process that has ended don't use."""
    for name in FILES:
        file = folder / f"{name}_{pid}.db"
        with suppress(OSError):
            (used,) = struct.unpack("i", file.open("rb").read(4))
            os.truncate(file, max(used, 8))


def sweep(place: Path) -> None:
    """Remove folders of this user whose processes were killed."""
    for folder in place.glob(PREFIX + "*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if not (folder / LOCK).exists():
                if time.time() - folder.stat().st_mtime > UNLOCKED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
