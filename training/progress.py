"""Lines that say what a job is doing, so that nobody sees half a minute of silence."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS = 30.0


@contextmanager
def told(what: str, unit: str = "", total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Say what is done while it goes on: ``what`` at once, and how far it is every half a minute.

    Yields a function that takes how many more of ``unit`` are done, where that is counted. On a
    terminal a bar shows it instead.
    """
    out = sys.stdout  # others may redirect it meanwhile
    started, ended = time.monotonic(), threading.Event()
    print(what, file=out)
    bar = tqdm(desc=what, total=total, unit=f" {unit}", leave=False, disable=None if unit else True)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)

    def tell() -> None:
        while not ended.wait(SECONDS):
            if bar.disable:
                of = f" of {total:,}" if total is not None else ""
                counted = f"{done:,}{of} {unit}, " if unit else ""
                print(f"  {what}: {counted}{time.monotonic() - started:.0f} s so far", file=out)

    thread = threading.Thread(target=tell, daemon=True)
    with bar:
        thread.start()
        try:
            yield advance
        finally:
            ended.set()
            thread.join()
