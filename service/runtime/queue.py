"""Scheduling: a bounded, work-conserving FIFO queue in front of the models of one worker.

A model runs on the event loop itself: for half a millisecond of work a thread costs more than it
saves. A request that is alone runs at once. When several have arrived, all are read first and then
run one after the other. A turn of the event loop runs some milliseconds of them, so that reading,
refusing and /health continue in between. Interpreter and model evict each other from the
processor's caches, and the first work after a switch takes up to three times as long: switching
once a turn instead of once a request serves 15 to 35 % more of the shipped int8 networks
(bench/NOTES.md). There is no timer and no polling.

Requests finish in the order of their arrival: a decoded picture is classified before later ones are
decoded. Otherwise all waiting pictures would be decoded first, holding the memory of every decoder.

What waits for the same graph runs together, up to ``batch`` rows and no longer than a turn: 9 to
18 % more of the shipped networks where an image of eight takes less than one alone, and no less
where it doesn't. Nothing ever waits for a batch to fill.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from service.runtime.cost import Cost
from service.runtime.errors import QueueFull
from service.runtime.observer import Observer
from service.runtime.resources import Resources, WorkPool
from service.runtime.session import Array, Session

Result = TypeVar("Result")

# A longer run (a saliency map) would block the event loop: it goes to a pool of threads.
LONG_SECONDS = 0.01
LONG_RUN_BYTES = 40 * 1024 * 1024  # the saliency map of the shipped network takes 16 to 41 MiB
# A turn ends after the run in which this time has passed. Turns twice as long serve 3 % less at ten
# times the load that a worker can carry; shorter ones serve less at 32 clients without overload.
TURN_SECONDS = 0.005

# Arrival number of the request that this task serves; it orders all of its work.
_ticket: ContextVar[int | None] = ContextVar("ticket", default=None)


@dataclass(eq=False, slots=True)
class Job:
    """Work that waits for its turn: a run of ``session``, or any function if that is None.

    ``arguments`` of a run are arrays whose first dimension is the batch. ``turn`` is the arrival
    number of the request, then that of the job.
    """

    turn: tuple[int, int]
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: asyncio.Future[Any]
    session: Session | None = None
    begun: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that it adds to a batch."""
        return len(self.arguments[0]) if self.session else 1

    def __lt__(self, other: "Job") -> bool:
        return self.turn < other.turn


class Queue:
    """The queue of one worker. Belongs to its event loop."""

    def __init__(
        self,
        depth: int,
        batch: int,
        observer: Observer | None = None,
        graphs: WorkPool | None = None,
    ) -> None:
        self.observer = observer or Observer()
        # For runs that would take too long on the event loop.
        self.graphs = graphs or Resources().graphs
        self.depth = depth
        self.batch = batch
        self.taken = 0
        # Places for requests whose task was created but has not taken its place yet.
        self.arriving = 0
        # Called for each place that becomes free.
        self.on_room: Callable[[], None] = lambda: None
        self._numbers = itertools.count()
        self._waiting: list[Job] = []  # a heap
        self._busy = False

    @property
    def full(self) -> bool:
        """Is there no place left, counting those of requests that are about to begin?"""
        return self.taken + self.arriving >= self.depth

    def check(self) -> None:
        """Raise QueueFull if no place is free: to be called before a body is read."""
        if self.taken >= self.depth:
            raise QueueFull

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Hold ``count`` places, from the whole body to the answer.

        Raises QueueFull if too few are free.

        A request larger than the queue is admitted when it is alone. The work of one that holds
        several places is interleaved with the others', to avoid head-of-line blocking.
        """
        if self.taken and self.taken + count > self.depth:
            raise QueueFull
        self.taken += count
        self.observer.places_taken(self.taken)
        ticket = _ticket.set(next(self._numbers) if count == 1 else None)
        try:
            yield
        finally:
            _ticket.reset(ticket)
            self.taken -= count
            self.observer.places_taken(self.taken)
            for _ in range(count):
                self.on_room()

    async def run(self, session: Session, *arrays: Array) -> list[Array]:
        """The outputs of ``session``: at once if no other request is there, else in turn.

        A caller that is cancelled while it waits gives up its turn. A run that is too long for a
        turn runs in a thread; QueueFull if that would begin too late.
        """
        seconds = session.row_seconds * len(arrays[0])
        if seconds > LONG_SECONDS:
            self.graphs.check()
            cost = Cost(seconds, LONG_RUN_BYTES)
            return await self.graphs.in_thread(cost, session.run, *arrays)
        outputs: list[Array] = await self._in_turn(session.run, arrays, session)
        return outputs

    async def do(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The result of a ``function`` that takes a few milliseconds, run in turn like a graph."""
        result: Result = await self._in_turn(function, arguments)
        return result

    async def _in_turn(
        self, work: Callable[..., Any], arguments: tuple[Any, ...], session: Session | None = None
    ) -> Any:
        loop = asyncio.get_running_loop()
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
            if self.taken + self.arriving <= 1:
                return work(*arguments)
        number = next(self._numbers)
        ticket = _ticket.get()
        turn = (number if ticket is None else ticket, number)
        job = Job(turn, work, arguments, loop.create_future(), session)
        heapq.heappush(self._waiting, job)
        asked = time.perf_counter()
        result = await job.result
        self.observer.waited(job.begun - asked, for_graph=session is not None)
        return result

    def _next(self) -> None:
        """One turn: run jobs in order until ``TURN_SECONDS`` have passed."""
        end = time.perf_counter() + TURN_SECONDS
        while jobs := self._take():
            begun = time.perf_counter()
            for job in jobs:
                job.begun = begun
            _run(jobs)
            if time.perf_counter() >= end:
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._busy = False

    def _take(self) -> list[Job]:
        """The next job, and those that can run together with it."""
        while self._waiting:
            first = heapq.heappop(self._waiting)
            if first.result.done():  # its client has gone
                continue
            jobs, size = [first], first.rows
            while first.session is not None and self._waiting:
                job = self._waiting[0]
                size += job.rows
                if job.session is not first.session or size > self._most_rows(first.session):
                    break
                heapq.heappop(self._waiting)
                if job.result.done():
                    size -= job.rows
                else:
                    jobs.append(job)
            return jobs
        return []

    def _most_rows(self, session: Session) -> int:
        """How many rows one run of waiting jobs takes."""
        if session.row_seconds * self.batch <= TURN_SECONDS:
            return self.batch
        return int(TURN_SECONDS / session.row_seconds)


def _run(jobs: list[Job]) -> None:
    """One run for all ``jobs``, which are of one session."""
    if len(jobs) == 1:
        _finish(jobs[0])
        return
    try:
        columns = zip(*(job.arguments for job in jobs), strict=True)
        outputs = jobs[0].work(*(np.concatenate(parts) for parts in columns))
    except Exception:  # caused by one job, or by the size of the batch: run each alone
        for job in jobs:
            _finish(job)
        return
    start = 0
    for job in jobs:
        rows = slice(start, start + job.rows)
        job.result.set_result([output[rows] for output in outputs])
        start = rows.stop


def _finish(job: Job) -> None:
    try:
        job.result.set_result(job.work(*job.arguments))
    except Exception as error:  # belongs to the request that asked, and to no other
        job.result.set_exception(error)
