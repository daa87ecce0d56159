"""bench.only_avx2: a command finds a processor with AVX2 and nothing newer."""

import shutil
import sys
from pathlib import Path

import pytest

from bench.only_avx2 import run

CPU = Path("/proc/cpuinfo")
# ONNX Runtime asks the processor while it is imported, here in another thread.
ASK = """
import sys, threading
from numpy._core._multiarray_umath import __cpu_features__ as has
seen = []
thread = threading.Thread(target=lambda: seen.append(__import__("onnxruntime").__version__))
thread.start()
thread.join()
sys.exit(seen == [] or not has["AVX2"] or has["AVX512F"])
"""
CRASH = "import ctypes; ctypes.string_at(1)"

pytestmark = pytest.mark.skipif(
    not CPU.exists() or "cpuid_fault" not in CPU.read_text() or shutil.which("cc") is None,
    reason="needs Linux, an Intel processor with CPUID faulting, and a C compiler",
)


def test_newer_instructions_are_hidden() -> None:
    assert run([sys.executable, "-c", ASK]) == 0


def test_other_faults_still_end_the_process() -> None:
    assert run([sys.executable, "-c", CRASH]) == -11
