"""``python -m service``: serve on GRADSERVE_HOST (127.0.0.1) and GRADSERVE_PORT (8000)."""

import os
import signal
import sys
from types import FrameType

from service.server.metrics_folder import MetricsFolder
from service.server.portable import ending_signals, missing_parts


def main() -> int:
    """Set what libraries read from the environment when they are loaded; then serve."""
    # Threads of numpy's would compete with the workers, and do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number in ending_signals():  # until the supervisor takes over: end, and leave nothing
        signal.signal(number, _end)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    folder = None
    try:
        if not missing_parts():
            # A signal while the folder is made waits until there is something to remove.
            signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
            folder = MetricsFolder()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals())
        if folder is not None and folder.path is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)
        from service import command

        return command.main(folder)
    finally:
        if folder is not None:
            folder.remove()


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
