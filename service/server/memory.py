"""Keep a worker small: glibc returns freed memory to the system only if it is told to.

Loading a model takes several times its size for a moment, and so does decoding a large photo. glibc
keeps what is freed for later; a worker, which loads once and then serves for weeks, has no use for
it. The memory of requests is another matter: returned after each, it is allocated page by page for
the next, which took a fifth of the time of a 12-megapixel photo or of 10,000 x. So a few MiB are
kept, and what many photos leave is returned while the worker is idle. Under another C library
these functions do nothing.
"""

from contract.system import c_library, memory_used, set_malloc

LARGE_BYTES = 4 * 1024 * 1024
KEPT_BYTES = 8 * 1024 * 1024  # of each heap; glibc's own 128 KiB are less than an answer
ARENAS = 2
# Returning less isn't worth the page faults of the next request.
SPARE_BYTES = 16 * 1024 * 1024


_libc = c_library()


def configure_malloc() -> None:
    """Let large blocks go back when freed, and so all but ``KEPT_BYTES`` of a heap; share heaps.

    By default the first large block that is freed makes glibc keep all such blocks from then on. A
    heap gives back only when it has twice ``KEPT_BYTES`` free, and keeps those: were it emptied at
    the very size that sets it off, requests of that size would pay for every page each time.
    """
    set_malloc(
        mmap_threshold=LARGE_BYTES,
        top_pad=KEPT_BYTES,
        trim_threshold=2 * KEPT_BYTES,
        arena_max=ARENAS,
    )


def resident() -> int:
    """Bytes of this process in memory; 0 where that is not known."""
    used = memory_used()
    return 0 if used is None else used[1]


def trim_heap() -> None:
    """Return all free heap memory to the system."""
    if _libc is not None and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
