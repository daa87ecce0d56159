"""How many cores this process may use: its affinity, and the limit of its container."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """Whole cores this process may use, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(cores or 1, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Cores' worth of time that control groups grant, version 2 or 1; infinite without limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return float("inf")
    try:
        granted = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return float("inf")
    return granted if granted > 0 else float("inf")
