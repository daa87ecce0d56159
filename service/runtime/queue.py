"""Who runs next: a bounded, work-conserving queue in front of the models of one worker.

A model runs on the event loop itself: for half a millisecond of work a thread costs more than it
gives. An idle worker runs a request at once. While it was busy others may have arrived: those wait,
and each turn of the loop runs the next of them, so that reading, refusing and /health go on in
between. There is no timer and no polling.

Batching is a setting, off by default: one core takes as long for each of 64 images together as for
one alone (int8 and fp32 alike, measured with the shipped networks), so that waiting for company
only adds latency. On a GPU it pays; there a turn takes everything that waited, up to ``batch``.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from service.errors import Busy
from service.metrics import WAITING
from service.runtime.session import Array, Session

Result = TypeVar("Result")

# What is long (a photo to decode, many x) runs in these few threads, beside the event loop.
THREADS = 2


@dataclass(eq=False, slots=True)
class Job:
    """Inputs that wait for their turn; the first dimension of each is the batch."""

    session: Session
    arrays: tuple[Array, ...]
    result: asyncio.Future[list[Array]]


class Queue:
    """The queue of one worker. Belongs to its event loop."""

    def __init__(self, depth: int, batch: int) -> None:
        self.depth = depth
        self.batch = batch
        self.taken = 0
        self._waiting: deque[Job] = deque()
        self._busy = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="heavy")

    def check(self) -> None:
        """Raise Busy if no place is free: worth asking before a body is read."""
        if self.taken >= self.depth:
            raise Busy

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Hold ``count`` places, from the whole body to the answer. Raises Busy if too few are.

        A request that is larger than the queue is let in when it is alone.
        """
        if self.taken and self.taken + count > self.depth:
            raise Busy
        self.taken += count
        WAITING.set(self.taken)
        try:
            yield
        finally:
            self.taken -= count
            WAITING.set(self.taken)

    async def run(self, session: Session, *arrays: Array) -> list[Array]:
        """The outputs of ``session``: at once if the worker is idle, else in turn.

        A caller that is cancelled while it waits gives up its turn.
        """
        loop = asyncio.get_running_loop()
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
            return session.run(*arrays)
        job = Job(session, arrays, loop.create_future())
        self._waiting.append(job)
        return await job.result

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The result of a long ``function``, computed beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        """One turn: run what is first, with as many like it as one run may take."""
        jobs = self._take()
        if not jobs:
            self._busy = False
            return
        asyncio.get_running_loop().call_soon(self._next)
        if len(jobs) == 1:
            _finish(jobs[0])
            return
        try:
            merged = [
                np.concatenate(parts) for parts in zip(*(j.arrays for j in jobs), strict=True)
            ]
            outputs = jobs[0].session.run(*merged)
        except Exception:  # one of them may be to blame, or the size of all: each on its own, then
            for job in jobs:
                _finish(job)
            return
        ends = np.cumsum([len(job.arrays[0]) for job in jobs])[:-1]
        for job, parts in zip(
            jobs, zip(*(np.split(o, ends) for o in outputs), strict=True), strict=True
        ):
            job.result.set_result(list(parts))

    def _take(self) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        while self._waiting:
            job = self._waiting[0]
            if not job.result.done():  # done: its client has gone
                size += len(job.arrays[0])
                if jobs and (size > self.batch or job.session is not jobs[0].session):
                    break
                jobs.append(job)
            self._waiting.popleft()
        return jobs


def _finish(job: Job) -> None:
    try:
        job.result.set_result(job.session.run(*job.arrays))
    except Exception as error:  # belongs to the request that asked, and to no other
        job.result.set_exception(error)
