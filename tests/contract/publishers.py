"""Programs that the interruption tests start, and kill, as processes of their own.

publishers.py killed ROOT       in ROOT/k, die by SIGKILL at the k-th moment; k = 0, 1, 2, …
publishers.py looping ROOT      publish versions without end
publishers.py counted ROOT N    publish N versions, waiting while another process publishes
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from contract_examples import publish

from contract.errors import PublishConflict


def die_at(moment: int) -> None:
    """From now on, die by SIGKILL at the ``moment``-th call or return of a file-system function.

    The file system changes only inside such C functions, so these are all the states there are,
    but for those within one call.
    """
    remaining = moment

    def count(frame: FrameType, event: str, function: Any) -> None:
        nonlocal remaining
        if event not in {"c_call", "c_return"}:
            return
        module = function.__module__ or type(function.__self__).__module__
        if module in {"posix", "_io", "fcntl"}:
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

    sys.setprofile(count)


def killed(root: Path) -> None:
    """Publish version 2 beside a copy of version 1, dying at each moment in turn."""
    publish(root / "seed", note="first")
    for moment in range(10_000):
        home = root / str(moment)
        shutil.copytree(root / "seed", home)
        child = os.fork()
        if child == 0:
            die_at(moment)
            publish(home, note="second")
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:  # there was no such moment any more: we have seen all
            return
    raise RuntimeError("publishing has no end")


def looping(root: Path) -> None:
    while True:
        publish(root)


def counted(root: Path, versions: int) -> None:
    deadline = time.monotonic() + 60
    while versions:
        try:
            publish(root)
            versions -= 1
        except PublishConflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["killed", root]:
            killed(Path(root))
        case ["looping", root]:
            looping(Path(root))
        case ["counted", root, versions]:
            counted(Path(root), int(versions))
        case _:
            sys.exit(__doc__)
