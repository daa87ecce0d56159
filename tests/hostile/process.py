"""What a process holds, as Linux counts it."""

import os
from pathlib import Path


def _status(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(f"\n{name}:")[2].split()[0])


def resident_mib(pid: int) -> float:
    """Memory in use, MiB."""
    return _status(pid, "VmRSS") / 1024


def own_mib(pid: int) -> float:
    """Memory in use that is no file's, MiB: what a leak adds to."""
    return _status(pid, "RssAnon") / 1024


def peak_mib(pid: int) -> float:
    """The most memory that it has had since ``forget_peak``, MiB."""
    return _status(pid, "VmHWM") / 1024


def forget_peak(pid: int) -> None:
    """Let the peak be what is in use now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """Open files and connections."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads."""
    return _status(pid, "Threads")


def cpu_seconds(pid: int) -> float:
    """Processor time that it has used, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
