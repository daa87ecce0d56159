"""Times the classifiers' graphs as on a processor that has AVX2 and nothing newer.

    python -m bench.only_avx2                              # int8 and fp32, with AVX2 and as it is
    python -m bench.only_avx2 python -m gradserve serve    # or run any command with AVX2 alone

The processor stays what it is: only what it says of itself changes (only_avx2.c). An older one has
other caches and another clock, so of these times the ratios are worth more. Needs Linux, a C
compiler, and an Intel processor with ``cpuid_fault`` in /proc/cpuinfo. The command must leave
SIGSEGV alone: pytest needs ``-p no:faulthandler``.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.peers.model import session
from bench.subjects import graph, newest

CLASSIFIERS = ("cifar-improved", "cifar-fast", "cifar-baseline")
ROUNDS, RUNS = 40, 15
HERE = "--here"  # what it tells itself


def run(command: list[str]) -> int:
    """The exit status of ``command``, which finds a processor with AVX2 and nothing newer."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "only_avx2.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        return subprocess.run(
            command, env=os.environ | {"LD_PRELOAD": str(library)}, check=False
        ).returncode


def times(model: str) -> dict[str, list[float]]:
    """Milliseconds of this thread for one picture, by precision: a median for each round."""
    artifact = newest(Path("artifacts"), model)
    graphs = [graph(artifact, "probabilities", precision) for precision in ("auto", "fp32")]
    sessions = {each.precision: session(str(each.file)) for each in graphs}
    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    found: dict[str, list[float]] = {precision: [] for precision in sessions}
    for _ in range(ROUNDS):
        for precision, each in sessions.items():
            took = []
            for _ in range(RUNS):
                started = time.thread_time()
                each.run(None, {"image": picture})
                took.append(1e3 * (time.thread_time() - started))
            found[precision].append(statistics.median(took))
    return found


def main(arguments: list[str]) -> int:
    """Run the command given, or print a table of times."""
    if arguments and arguments != [HERE]:
        return run(arguments)
    if not arguments:
        again = [sys.executable, "-m", "bench.only_avx2", HERE]
        for name, start in (("AVX2", run), ("as it is", subprocess.call)):
            print(name, flush=True)
            if status := start(again):
                return status
        return 0
    for model in CLASSIFIERS:
        int8, fp32 = times(model).values()
        ratio = statistics.median(a / b for a, b in zip(int8, fp32, strict=True))
        print(
            f"  {model}: int8 {statistics.median(int8):.3f} ms, "
            f"fp32 {statistics.median(fp32):.3f} ms, int8 ÷ fp32 {ratio:.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
