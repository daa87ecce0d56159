"""Who runs next: a bounded, work-conserving queue in front of the models of one worker.

A model runs on the event loop itself: for half a millisecond of work a thread costs more than it
gives. A request that is alone runs at once. Of several that have arrived, all are read first, and
then run one after the other, some milliseconds of them in each turn of the loop, so that reading,
refusing and /health go on in between. Interpreter and model push each other out of the processor's
caches, and what is done first after a change takes up to three times as long: changing once a turn
instead of once a request serves 9 % more of the shipped int8 network. There is no timer and no
polling.

Who came first is finished first: a picture that has been decoded is classified before later ones
are decoded. Else all that wait would be decoded first, with the memory of all their decoders held.

Batching is a setting, off by default: one core takes as long for each of 64 images together as for
one alone (int8 and fp32 alike, measured with the shipped networks), so that waiting for company
only adds latency. On a GPU it pays; there a turn takes everything that waited, up to ``batch``.
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
from service.runtime.room import Lane, Room
from service.runtime.session import Array, Session

Result = TypeVar("Result")

# A longer run (a saliency map) is no work for the event loop: it goes to a lane with threads.
LONG_SECONDS = 0.01
LONG_RUN_BYTES = 40 * 1024 * 1024  # the saliency map of the shipped network takes 16 to 41 MiB
# A turn ends with the run in which this time is over. With turns twice as long 3 % less is served
# at ten times the load that can be, with shorter ones at 32 clients and no overload.
TURN_SECONDS = 0.005

# Of the request that this task serves: all its work is ordered by when it came.
_ticket: ContextVar[int | None] = ContextVar("ticket", default=None)


@dataclass(eq=False, slots=True)
class Job:
    """Work that waits for its turn. With a ``session`` it is a run of that, and ``arguments`` are
    arrays whose first dimension is the batch. Its ``turn`` is that of its request, then its own.
    """

    turn: tuple[int, int]
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    result: asyncio.Future[Any]
    session: Session | None = None
    begun: float = 0.0

    @property
    def rows(self) -> int:
        """How much of a batch it takes."""
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
        graphs: Lane | None = None,
    ) -> None:
        self.observer = observer or Observer()
        # Where runs go that take too long for the event loop.
        self.graphs = graphs or Room().graphs
        self.depth = depth
        self.batch = batch
        self.taken = 0
        # Places of requests whose task has been made, and has not asked for them yet.
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
        """Raise QueueFull if no place is free: worth asking before a body is read."""
        if self.taken >= self.depth:
            raise QueueFull

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Hold ``count`` places, from the whole body to the answer.

        Raises QueueFull if too few are free.

        A request that is larger than the queue is let in when it is alone. One of several places
        does its work piece by piece among the others', so as not to hold them up.
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
        """The outputs of ``session``: at once if nobody else is there, else in turn.

        A caller that is cancelled while it waits gives up its turn. What takes long for a turn
        runs in a thread; QueueFull if that would begin too late.
        """
        seconds = session.row_seconds * len(arrays[0])
        if seconds > LONG_SECONDS:
            self.graphs.check()
            cost = Cost(seconds, LONG_RUN_BYTES)
            return await self.graphs.in_thread(cost, session.run, *arrays)
        outputs: list[Array] = await self._in_turn(session.run, arrays, session)
        return outputs

    async def do(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The result of a ``function`` that takes a few milliseconds, in turn as well."""
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
        """One turn: run what is first, and what follows for as long as a turn may take."""
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
                if job.session is not first.session or size > self.batch:
                    break
                heapq.heappop(self._waiting)
                if job.result.done():
                    size -= job.rows
                else:
                    jobs.append(job)
            return jobs
        return []


def _run(jobs: list[Job]) -> None:
    """One run for all ``jobs``, which are of one session."""
    if len(jobs) == 1:
        _finish(jobs[0])
        return
    try:
        columns = zip(*(job.arguments for job in jobs), strict=True)
        outputs = jobs[0].work(*(np.concatenate(parts) for parts in columns))
    except Exception:  # one of them may be to blame, or the size of all: each on its own, then
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
