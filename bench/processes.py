"""Start a server with everything it spawns, watch it, and stop all of it again.

Some servers start processes that leave the session and the process group of their parent. What
they cannot leave is their environment: every server gets a token of its own in it, by which all
its processes are found in /proc. Nothing else is ever signalled.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TOKEN = "GRADSERVE_BENCH_TOKEN"
PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Memory of all processes of a server, in MiB (2²⁰ bytes).

    PSS shares out a page among the processes that map it, so it may be added up; RSS counts it in
    each of them.
    """

    processes: int
    total_pss: float
    largest_pss: float
    largest_rss: float


class Running:
    """A server started in its own session. Leaving the block ends it and all it has spawned."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.command = list(command)
        self.environment = {**os.environ, **environment}
        self.folder = folder
        self.log = log
        self.token = uuid.uuid4().hex

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**self.environment, TOKEN: self.token},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(8)
        self._wait_until_gone(1)
        for _ in range(5):  # again, for what was spawned while the others were being ended
            for pid in self.pids():
                _signal(pid, signal.SIGKILL)
            if self._wait_until_gone(2):
                break

    def alive(self) -> bool:
        """Whether the process that was started is still there."""
        return self.process.poll() is None

    def pids(self) -> list[int]:
        """Ids of all living processes that carry the token."""
        wanted = f"{TOKEN}={self.token}".encode()
        found = []
        for entry in PROC.iterdir():
            if entry.name.isdecimal():
                try:
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue  # it has ended meanwhile, or is another user's
        return found

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """All of it stands still meanwhile: some servers are busy even when nobody asks."""
        pids = self.pids()
        try:
            for pid in pids:
                _signal(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    def memory(self) -> Memory:
        """What the processes hold now."""
        pss, rss = [], []
        for pid in self.pids():
            try:
                lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
            except OSError:
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            pss.append(sizes["Pss"] / 1024)
            rss.append(sizes["Rss"] / 1024)
        return Memory(len(pss), sum(pss), max(pss, default=0), max(rss, default=0))

    def cpu_seconds(self) -> float:
        """CPU time of the living processes so far."""
        total = 0
        for pid in self.pids():
            try:
                # The name, in parentheses, may itself hold spaces and parentheses.
                fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def settle(self, at_most: float) -> None:
        """Wait until the server has worked off what an earlier load left it with."""
        deadline = time.monotonic() + at_most
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.25)
            now = self.cpu_seconds()
            if now - before < 0.25 * 0.3:
                return
            before = now

    def last_words(self, lines: int = 3) -> str:
        """The end of the server's log, on one line."""
        text = self.log.read_text(errors="replace").split("\n")
        return " | ".join(line.strip() for line in text if line.strip() and len(line) < 400)[
            -300 * lines :
        ]

    def _wait_until_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.process.poll()  # reaps it
            if not self.pids():
                return True
            time.sleep(0.05)
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)
