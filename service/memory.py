"""Giving memory back to the system after a model has been loaded or dropped.

Loading takes several times a model's size for a moment. glibc keeps what is freed for later; a
worker, which loads once and then serves for weeks, has no use for it.
"""

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library than glibc
        return None
    return trim


_malloc_trim = _find_trim()


def give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)
