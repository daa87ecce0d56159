"""``python -m service``: serve on GRADSERVE_HOST (127.0.0.1) and GRADSERVE_PORT (8000)."""

import os
import shutil
import sys
import tempfile


def main() -> int:
    """Set what libraries read from the environment when they are loaded; then serve."""
    # Threads of numpy's would compete with the workers, and do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    metrics = tempfile.mkdtemp(prefix="gradserve-", dir=shared_memory)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
    from service import command

    try:
        return command.main()
    finally:
        shutil.rmtree(metrics, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
