"""Where operating systems differ: locks, symbolic links, flushing to disk, memory."""

import ctypes
import os
import sys
from io import BufferedReader, BufferedWriter
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    try:
        import fcntl
    except ImportError:  # where there is none, files can't be locked
        fcntl = None  # type: ignore[assignment]

# Windows lacks the first three; without the last it translates line ends.
_PLAIN = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")


def lock(stream: BufferedWriter | BufferedReader) -> None:
    """Lock a file until it is closed. Raises OSError if another process has locked it."""
    if sys.platform == "win32":
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    elif fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_shared(stream: BufferedReader) -> None:
    """Lock a file against ``lock`` until it is closed; others may do so as well.

    Raises OSError if a process has locked it for itself. Windows has no such locks: there it does
    nothing.
    """
    if sys.platform != "win32" and fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)


def open_plain(path: Path) -> int:
    """A descriptor to read a file that is no symbolic link. Raises OSError."""
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(0, "it is a symbolic link")
    flags = os.O_RDONLY
    for name in _PLAIN:
        flags |= getattr(os, name, 0)
    return os.open(path, flags)


def sync_file(path: Path) -> None:
    """Flush the content of a file to disk."""
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, where the system can open a folder."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def memory_used() -> tuple[int, int] | None:
    """Bytes of address space and of memory that this process has; None where it isn't Linux."""
    try:
        size, resident = Path("/proc/self/statm").read_text("ascii").split()[:2]
    except OSError:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return int(size) * page, int(resident) * page


# Options of glibc's mallopt(3), by name, from malloc.h.
_MALLOC_OPTIONS = {
    "trim_threshold": -1,
    "top_pad": -2,
    "mmap_threshold": -3,
    "mmap_max": -4,
    "arena_max": -8,
}


def c_library() -> ctypes.CDLL | None:
    """The C library of this process; None on Windows, which has no such handle."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None


def set_malloc(**options: int) -> None:
    """Set what glibc's malloc keeps and gives back; other C libraries have no such options.

    The options are mallopt(3)'s: trim_threshold, top_pad, mmap_threshold, mmap_max, arena_max.
    """
    mallopt = getattr(c_library(), "mallopt", None)
    if mallopt is not None:
        for name, value in options.items():
            mallopt(_MALLOC_OPTIONS[name], value)
