"""``python -m service``: serve on GRADSERVE_HOST (127.0.0.1) and GRADSERVE_PORT (8000)."""

import os
import signal
import sys
from types import FrameType

from service.runtime.verifying import VerifyingProcess
from service.server.cores import available_cores
from service.server.metrics_folder import MetricsFolder
from service.server.portable import missing_parts, shutdown_signals

EARLY_PROCESSES = 4  # at most: as many as verify at a time


def main() -> int:
    """Set what libraries read from the environment when they are loaded; then serve."""
    # Threads of numpy's would compete with the workers, and do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number in shutdown_signals():  # until the supervisor takes over: end, and leave nothing
        signal.signal(number, _end)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    folder = None
    processes: list[VerifyingProcess] = []
    whole = not missing_parts()
    try:
        if whole:
            # A signal while the folder is made, or a process started, waits until there is
            # something to remove, or to kill; and modules don't expect one while they are imported.
            signal.pthread_sigmask(signal.SIG_BLOCK, shutdown_signals())
            folder = MetricsFolder()
            if folder.path is not None:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)
            # They import while this process does.
            for _ in range(min(EARLY_PROCESSES, available_cores())):
                processes.append(VerifyingProcess())
        from service import command

        if whole:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, shutdown_signals())
        return command.main(folder, processes)
    finally:
        for number in shutdown_signals():  # it ends already
            signal.signal(number, signal.SIG_IGN)
        for process in processes:
            process.kill()
            process.close()
        if folder is not None:
            folder.remove()


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
