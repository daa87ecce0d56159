"""The parent process: starts the workers, replaces those that die or hang, drains them all.

It loads code and models once and forks, so that a worker starts in a few hundredths of a second and
shares their memory with the others. It never runs an event loop, and so has no threads.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from service.lifecycle import Lifecycle
from service.server import metrics_folder
from service.server.accept import refuse_new
from service.server.portable import shutdown_signals
from service.settings import Settings
from service.web import metrics

log = logging.getLogger("gradserve")

BACKLOG = 2048
LOOK_SECONDS = 0.25
STOPPED_SECONDS = 1.5  # a look that takes so long: this process was stopped
STABLE_SECONDS = 5.0  # a worker that lived so long did not fail at its start
MAX_BACKOFF_SECONDS = 5.0
# A silent worker is busy if it uses so much of a core, seen over so long.
BUSY_SHARE = 0.05
BUSY_LOOK_SECONDS = 1.0

Serve = Callable[[], None]


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError if that can't be had."""
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":  # where it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


@dataclass
class Worker:
    """A slot for a worker process. ``pid`` is None while it waits to be started again."""

    number: int
    pid: int | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    # Processor seconds it had used when it was last seen to be silent for too long.
    processor: float = 0.0
    looked_at: float | None = None


class Supervisor:
    """Keeps workers running ``serve`` until told to end: one for each slot of the board.

    ``lifecycle`` is what ``serve`` knows of itself; each worker finds its own number in it.
    """

    def __init__(
        self, listener: socket.socket, lifecycle: Lifecycle, settings: Settings, serve: Serve
    ) -> None:
        self.listener = listener
        self.lifecycle = lifecycle
        self.settings = settings
        self.serve = serve
        self.board = lifecycle.board
        self.workers = [Worker(number) for number in range(self.board.workers)]
        self.signals = {*shutdown_signals(), signal.SIGCHLD}

    def run(self) -> int:
        """Run until told to stop; the exit status, 0 if every worker drained in time."""
        # Signals are waited for, not handled: nothing can interrupt this loop half-way.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        # The collector need not look at what is loaded by now: that would copy pages that the
        # workers share.
        gc.collect()
        gc.freeze()
        # Requests leave no cycles behind: looking for them so often took 8 % under heavy load.
        gc.set_threshold(20_000, 20, 50)
        # The supervisor serves nothing: its readiness and queue must not count.
        metrics.remove_gauges(os.getpid())
        while True:
            self._start_due()
            began = time.monotonic()
            received = wait_for(self.signals, LOOK_SECONDS)
            if received is not None and received != signal.SIGCHLD:
                return self._stop(received)
            if time.monotonic() - began > STOPPED_SECONDS:
                # So did the workers, if Ctrl-Z stopped them all: their silence means nothing.
                for worker in self.workers:
                    self.board.write(worker.number, 0)
            self._reap()
            self._kill_hung()

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.pid is None and now >= worker.start_at:
                self._start(worker, now)

    def _start(self, worker: Worker, now: float) -> None:
        self.board.write(worker.number, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            worker.pid, worker.started, worker.looked_at = pid, now, None
            return
        status = 1
        try:
            # A signal that comes now waits until the server can drain.
            _count_for_itself()
            self.lifecycle.worker, self.lifecycle.parent = worker.number, os.getppid()
            self.serve()
            metrics.flush()  # what was cut off at the end
            logging.shutdown()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # Not sys.exit: the child must not run the parent's clean-up.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        for worker in self.workers:
            if worker.pid is None:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            metrics.remove_gauges(pid)
            if metrics.DIRECTORY in os.environ:
                metrics_folder.trim(Path(os.environ[metrics.DIRECTORY]), pid)
            now = time.monotonic()
            stable = now - worker.started >= STABLE_SECONDS
            worker.failures = 0 if stable else worker.failures + 1
            wait = 0 if stable else min(MAX_BACKOFF_SECONDS, 0.1 * 2 ** (worker.failures - 1))
            worker.pid, worker.start_at = None, now + wait
            log.error("worker %d ended (%s); starting another", pid, _reason(status))

    def _kill_hung(self) -> None:
        """Kill workers whose event loop stands still, unless they are only busy for a while."""
        for worker in self.workers:
            silent_for = self.board.seconds_since_heartbeat(worker.number)
            if worker.pid is None or silent_for <= self.settings.worker_timeout_seconds:
                worker.looked_at = None
                continue
            if silent_for <= self.settings.worker_busy_seconds and self._works(worker, worker.pid):
                continue
            log.error("worker %d has been silent for %.1f s: killed", worker.pid, silent_for)
            os.kill(worker.pid, signal.SIGKILL)
            # Its end is noticed in the next round; until then it counts as alive.
            self.board.write(worker.number, 0)

    def _works(self, worker: Worker, pid: int) -> bool:
        """Has a silent worker used the processor since the last look, or is this the first?"""
        now, used = time.monotonic(), processor_seconds(pid)
        if worker.looked_at is None:
            log.warning("worker %d does not answer for now: busy, or hung", pid)
            worker.looked_at, worker.processor = now, used
            return True
        if now - worker.looked_at < BUSY_LOOK_SECONDS:
            return True
        works = used - worker.processor >= BUSY_SHARE * (now - worker.looked_at)
        worker.looked_at, worker.processor = now, used
        return works

    def _stop(self, cause: signal.Signals) -> int:
        log.info("%s: draining", cause.name)
        running = {worker.pid for worker in self.workers if worker.pid is not None}
        for pid in running:
            os.kill(pid, cause)
        settings = self.settings
        # As in the workers, which accept until then, and what waits by then.
        delay = 0.0 if cause == signal.SIGINT else settings.drain_delay_seconds
        close_at = time.monotonic() + delay
        deadline = close_at + settings.drain_seconds + 5.0
        failed, listening = False, True
        while running and (now := time.monotonic()) < deadline:
            if listening and now >= close_at:
                refuse_new(self.listener)
                self.listener.close()
                listening = False
            pause = min(LOOK_SECONDS, close_at - now) if listening else LOOK_SECONDS
            if wait_for(self.signals, pause) == signal.SIGINT:
                break  # a second Ctrl-C means now
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    running.discard(pid)
                    failed |= status != 0
        for pid in running:
            log.error("worker %d did not end in time: killed", pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return 1 if failed or running else 0


def wait_for(signals: Set[signal.Signals], seconds: float) -> signal.Signals | None:
    """The signal that came within ``seconds``; None if none did.

    Where a process was stopped and continued meanwhile (Ctrl-Z and fg), Python's sigtimedwait may
    return a number that was never written.
    """
    received = signal.sigtimedwait(signals, seconds)
    number = received.si_signo if received else None
    return next((one for one in signals if one == number), None)


def processor_seconds(pid: int) -> float:
    """Processor time that all threads of a process have used; 0 where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _count_for_itself() -> None:
    """Give a worker that was just forked its own files to count in, if there is room."""
    if metrics.DIRECTORY not in os.environ:
        return
    try:
        metrics_folder.reserve(Path(os.environ[metrics.DIRECTORY]), os.getpid())
    except OSError as error:
        metrics.switch_off(f"there is no room for them ({error.strerror})")
    else:
        metrics.count_as(os.getpid())


def _reason(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name
