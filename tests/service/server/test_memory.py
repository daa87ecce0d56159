"""What a worker keeps of the memory that it has freed, seen in a fresh process."""

import subprocess
import sys

import pytest

from tests.server_process import ROOT

PRELUDE = """
import resource
from service.server import memory

memory.configure_malloc()

def hold(mib, blocks):
    held = [bytearray(mib * 2**20) for _ in range(blocks)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize() / 2**20
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is for glibc's heap")


def printed(program: str) -> float:
    """The number that ``program`` prints."""
    command = [sys.executable, "-c", PRELUDE + program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize(("mib", "pages"), [(6, 100), (12, 1200)])
def test_what_a_request_takes_is_kept_for_the_next(mib: int, pages: int) -> None:
    take = f"hold(1, {mib})"
    program = f"{take}; n = faults(); [{take} for _ in range(20)]; print(faults() - n)"
    assert printed(program) < pages  # 5,120 for each MiB, if they were taken anew


def test_what_is_far_more_goes_back_but_for_what_is_kept() -> None:
    program = "n = resident(); [hold(1, 40) for _ in range(3)]; print(resident() - n)"
    assert 4 < printed(program) < 16  # 12.2 with Python 3.13


def test_what_is_large_goes_back_when_it_is_freed() -> None:
    program = "n = resident(); [hold(20, 1) for _ in range(3)]; print(resident() - n)"
    assert printed(program) < 5
