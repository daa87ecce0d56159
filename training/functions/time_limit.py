"""A limit on the time that one function of a publication may take."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from training.functions.refusal import TOO_LONG, Refusal

SECONDS = 600.0  # by default; most functions take a few


class _TimeIsUp(BaseException):
    """Not an Exception: neither PyTorch nor a user's function should take it for one of theirs."""


@contextmanager
def time_limit(function: str, seconds: float) -> Iterator[None]:
    """Raises Refusal in this thread if the block takes longer than ``seconds``; 0 is no limit.

    The block is stopped between two steps of Python: not before a call into a library returns.
    """
    if not seconds:
        yield
        return
    thread, lock, over = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not over:
                _raise_in(thread, _TimeIsUp)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        try:
            timer.start()  # which may return only after the time is up
            yield
        finally:
            with lock:
                over = True
                _raise_in(thread, None)  # one that was asked for and has not come yet
            timer.cancel()
    except _TimeIsUp:
        raise Refusal(
            function,
            TOO_LONG,
            f"it was not done after {seconds:g} seconds; a loop that never ends, or one of very "
            "many steps, each of which is written down? Take fewer steps, or allow more time with "
            "--time-limit",
        ) from None


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """An exception of that kind in another thread, at its next step of Python; None takes it back.

    https://docs.python.org/3/c-api/threads.html#c.PyThreadState_SetAsyncExc
    """
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
