"""Keeping a worker small: glibc gives memory back only if it is told to.

Loading a model takes several times its size for a moment, and so does decoding a photo. glibc keeps
what is freed for later; a worker, which loads once and then serves for weeks, has no use for it.
Under another C library these functions do nothing.
"""

import ctypes

M_MMAP_THRESHOLD = -3  # mallopt(3)
M_ARENA_MAX = -8
LARGE_BYTES = 1024 * 1024
ARENAS = 2

_libc = ctypes.CDLL(None)


def settle() -> None:
    """Let large blocks go back when they are freed, and threads share their heaps.

    By default the first large block that is freed makes glibc keep all such blocks from then on.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        _libc.mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return to the system what is free at this moment."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
