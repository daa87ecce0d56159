"""The soak run in short, and that it would find a leak."""

import os
from pathlib import Path

from tests.hostile.soak import soak
from tests.server_process import ServerProcess

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
LEAKY_SECONDS = 8


class LeakyProcess(ServerProcess):
    """The service with leaks planted on purpose."""

    program = ("-m", "tests.hostile.leaky")


def test_mixed_load_leaves_nothing_behind(hostile_artifacts: Path) -> None:
    before = contents(hostile_artifacts)
    with ServerProcess(hostile_artifacts, access_log=False).wait_ready() as server:
        record = soak(server, SECONDS)
        assert record.faults() == []
        assert sum(record.good.values()) > 5 * SECONDS
        assert sum(record.hostile.values()) > 0.3 * SECONDS
        assert "Traceback" not in server.log.read_text()
    assert contents(hostile_artifacts) == before  # no request changes anything


def test_a_leak_is_found(hostile_artifacts: Path) -> None:
    with LeakyProcess(hostile_artifacts, access_log=False).wait_ready() as server:
        record = soak(server, LEAKY_SECONDS)
    faults = " ".join(record.faults())
    assert "memory grew" in faults
    assert "descriptors are left over" in faults


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }
