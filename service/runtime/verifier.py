"""Verify versions in separate processes, and share the verdicts among the workers.

A process verifies one version after another and ends when none is left
(``service.runtime.verify``). If it crashes on one, that version is refused and the next one gets a
new process. Each version is verified once a host: the parent makes ``Verdicts`` before it forks,
and all workers read and write them. Nothing here blocks: ``submit`` returns a future.
"""

import hashlib
import json
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from service.runtime.loader import Chosen, Verdict
from service.runtime.verifying import Answer, VerifyingProcess
from service.settings import Settings

try:
    import fcntl
except ImportError:  # Windows, where one process serves
    fcntl = None  # type: ignore[assignment]

ELSEWHERE_SECONDS = 0.1  # between looks whether another worker has finished


class Refused(Exception):
    """A version failed verification. The text says why."""


class Verdicts:
    """Answers by key, known to all processes that were forked from the one that made this.

    They stand in a file without a name, one line of JSON each. That somebody works on a key is a
    lock on one byte far behind them, which ends with the process that holds it.
    """

    LOCKS = 2**40  # where the locks begin
    WRITING = LOCKS - 1

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile() if fcntl is not None else None  # noqa: SIM115
        self._known: dict[str, Answer] = {}
        self._read = 0
        self._mutex = threading.Lock()

    def find(self, key: str) -> Answer | None:
        """The answer for ``key``, if any process has put one."""
        with self._mutex:
            if self._file is not None:
                descriptor = self._file.fileno()
                new = os.pread(descriptor, os.fstat(descriptor).st_size - self._read, self._read)
                whole = new[: new.rfind(b"\n") + 1]
                self._read += len(whole)
                for line in whole.splitlines():
                    found, answer = json.loads(line)
                    self._known[found] = answer
            return self._known.get(key)

    def claim(self, key: str) -> bool:
        """Begin to work on ``key``; False if another process does. Ends with ``put``."""
        return self._lock(self._place(key), wait=False)

    def put(self, key: str, answer: Answer) -> None:
        """Tell everybody the answer. Where the disk is full, the others find it for themselves."""
        self._known[key] = answer
        if self._file is None:
            return
        line = json.dumps([key, answer]).encode() + b"\n"
        descriptor = self._file.fileno()
        with self._mutex:  # locks are the process's, not the thread's
            self._lock(self.WRITING, wait=True)
            end = os.fstat(descriptor).st_size
            try:
                whole = os.pwrite(descriptor, line, end) == len(line)
            except OSError:
                whole = False
            if not whole:  # nobody must take half a line for the beginning of the next
                os.ftruncate(descriptor, end)
            self._unlock(self.WRITING)
        self.give_up(key)

    def give_up(self, key: str) -> None:
        """End working on ``key`` without an answer."""
        self._unlock(self._place(key))

    def _place(self, key: str) -> int:
        return self.LOCKS + int(hashlib.sha256(key.encode()).hexdigest()[:10], 16)

    def _lock(self, place: int, *, wait: bool) -> bool:
        if self._file is None:
            return True
        how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.lockf(self._file, how, 1, place)
        except OSError:
            return False
        return True

    def _unlock(self, place: int) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


@cache
def shared_verdicts() -> Verdicts:
    """Those of this process, and of all that are forked from it later."""
    return Verdicts()


class Verifier:
    """Judges versions in up to ``width`` processes at a time."""

    def __init__(self, settings: Settings, width: int = 1) -> None:
        self.width = width
        # What a verdict depends on besides the version.
        self._options = {
            "precision": settings.precision,
            "providers": settings.providers,
            "session_threads": settings.session_threads,
            "seconds": settings.verify_seconds,
            "bytes": settings.verify_bytes,
        }
        self.verdicts = shared_verdicts()
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[Path, str, Future[Verdict]]] = deque()
        self._threads: set[threading.Thread] = set()  # some may be ending
        self._working = 0  # those that take what waits
        self._processes: set[VerifyingProcess] = set()
        self._prepared: list[VerifyingProcess] = []
        self._stopped = False

    def prepare(self, processes: Sequence[VerifyingProcess]) -> None:
        """Take over processes that were started while this one still imported."""
        self._prepared = list(processes)
        self._processes.update(processes)

    def submit(self, folder: Path, key: str) -> "Future[Verdict]":
        """The verdict on the version in ``folder``, or the exception Refused; OSError where the
        system has no process, descriptor or memory left to verify it with.

        ``key`` stands for the files there: another worker's verdict on the same key, with the same
        settings, is used.
        """
        future: Future[Verdict] = Future()
        key = self._key(key)
        with self._mutex:
            self._stopped = False
            self._waiting.append((folder, key, future))
            if self._working < self.width:
                self._working += 1
                thread = threading.Thread(target=self._work, name="verify", daemon=True)
                self._threads.add(thread)
                thread.start()
        return future

    def _key(self, key: str) -> str:
        return hashlib.sha256(f"{self._options} {key}".encode("utf-8", "replace")).hexdigest()

    def stop(self) -> None:
        """End all processes and forget what waits. After it no thread is left."""
        with self._mutex:
            self._stopped = True
            self._waiting.clear()
            threads, prepared = list(self._threads), self._prepared
            self._prepared = []
            for process in self._processes:
                process.kill()
        for thread in threads:
            thread.join()
        for process in prepared:
            process.close()
        self._processes.clear()

    def _work(self) -> None:
        process: VerifyingProcess | None = None
        ended = False
        try:
            while True:
                with self._mutex:
                    if not self._waiting:
                        self._working -= 1
                        ended = True
                        return
                    folder, key, future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                answer = self._answer_elsewhere(key)
                if self._stopped:
                    self.verdicts.give_up(key)
                    return
                if answer is None:
                    try:
                        if process is None or not process.running:
                            process = self._start()
                    except OSError as error:  # says nothing of the version
                        self.verdicts.give_up(key)
                        future.set_exception(error)
                        continue
                    answer = process.ask(folder, self._options)
                    if self._stopped:
                        self.verdicts.give_up(key)
                        return
                    self.verdicts.put(key, answer)
                _resolve(future, answer)
        finally:
            if process is not None:
                process.close()
            with self._mutex:
                self._working -= 0 if ended else 1
                self._threads.discard(threading.current_thread())
                if process is not None:
                    self._processes.discard(process)

    def _answer_elsewhere(self, key: str) -> Answer | None:
        """What another worker has found; None if finding out is now this one's."""
        while (answer := self.verdicts.find(key)) is None and not self._stopped:
            if self.verdicts.claim(key):
                # It may have been told between the look and the claim.
                if (answer := self.verdicts.find(key)) is not None:
                    self.verdicts.give_up(key)
                return answer
            time.sleep(ELSEWHERE_SECONDS)
        return answer

    def _start(self) -> VerifyingProcess:
        with self._mutex:
            process = self._prepared.pop() if self._prepared else None
        process = process or VerifyingProcess()
        with self._mutex:
            self._processes = {p for p in self._processes if p.running} | {process}
            if self._stopped:
                process.kill()
        return process


def _resolve(future: "Future[Verdict]", answer: Answer) -> None:
    if "verdict" not in answer:
        future.set_exception(Refused(answer["reason"]))
        return
    verdict = answer["verdict"]
    functions = {
        name: Chosen(**(chosen | {"refused": tuple(chosen["refused"])}))
        for name, chosen in verdict["functions"].items()
    }
    future.set_result(Verdict(verdict["digest"], functions))
