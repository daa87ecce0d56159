"""What the requests of a worker share: a memory budget in bytes, and pools that work waits for.

All that requests hold (bodies, parsed documents, decoded pictures) is counted against one budget of
memory before it is allocated. Work that takes long waits in a pool with others of its kind, so that
short work of another kind never waits behind it (head-of-line blocking). A pool refuses what would
begin too late: the client learns it at once, and can ask elsewhere.
"""

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from typing import TypeVar

from service.runtime.cost import Cost
from service.runtime.errors import QueueFull
from service.settings import MIB

Result = TypeVar("Result")
Waiting = deque[tuple[int, asyncio.Future[None]]]

# For small work while something large has all the rest: a saliency map and some photos.
RESERVE_BYTES = 56 * MIB
NICE = 10  # a ninth of what a thread of usual priority gets, where both want all of a core
MEMORY_FULL = "The memory for requests is all in use; try again shortly"
TOO_LATE = "Work on this request would begin too late; try again shortly"
# How quickly the pace of a pool follows what is measured, and how far it may go.
PACE_WEIGHT = 0.2
PACE_RANGE = (0.1, 10.0)


class MemoryBudget:
    """Bytes of memory that the requests of one worker may hold. Belongs to its event loop.

    A budget that is part of another one takes from that, ``within``, as well. ``reserve`` bytes are
    kept for requests that ask for no more than that at a time, so that small work never waits for
    large work.
    """

    def __init__(self, limit: int, within: "MemoryBudget | None" = None, reserve: int = 0) -> None:
        self.limit = limit
        # Called before large allocations: returns free heap memory to the system.
        self.trim_heap: Callable[[], None] = lambda: None
        self.reserve = reserve
        self.used = 0
        self._within = within
        self._small: Waiting = deque()
        self._large: Waiting = deque()

    @property
    def most(self) -> int:
        """The most that can be had at a time."""
        return self.limit - self.reserve

    def take(self, size: int, *, large: bool = False) -> None:
        """Take ``size`` bytes at once; ``release`` must follow. Raises QueueFull.

        ``large`` leaves the reserve alone, whatever the size.
        """
        if self.used + size > (self.most if large else self.limit):
            raise QueueFull(MEMORY_FULL)
        if self._within is not None:
            self._within.take(size)
        self.used += size

    def for_request(self) -> "Reservation":
        """A reservation for the current task, released when the task, and so its request, ends."""
        hold = Reservation(self)
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(hold.release)
        return hold

    async def wait(self, size: int, seconds: float) -> None:
        """Take ``size`` bytes as soon as they are free: among large ones, and among small ones, in
        order of arrival. Raises QueueFull if that takes longer than ``seconds``.
        """
        waiting, limit = self._for(size)
        if not waiting and self.used + size <= limit:
            self.used += size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, granted)
        waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.release(size)
            elif entry in waiting:
                waiting.remove(entry)
                self._grant()
            if isinstance(error, TimeoutError):
                raise QueueFull(MEMORY_FULL) from None
            raise

    async def wait_for_request(self, size: int, seconds: float) -> None:
        """The same, until the task of the request ends."""
        size = min(size, self.most)
        await self.wait(size, seconds)
        self.for_request().size += size
        if size > self.reserve:
            self.trim_heap()

    def release(self, size: int) -> None:
        """Release ``size`` bytes that were taken."""
        self.used -= size
        if self._within is not None:
            self._within.release(size)
        self._grant()

    def _for(self, size: int) -> tuple[Waiting, int]:
        return (self._large, self.most) if size > self.reserve else (self._small, self.limit)

    def _grant(self) -> None:
        for waiting, limit in ((self._small, self.limit), (self._large, self.most)):
            while waiting:
                size, granted = waiting[0]
                if not granted.done():
                    if self.used + size > limit:
                        break
                    self.used += size
                    granted.set_result(None)
                waiting.popleft()


class Reservation:
    """What one request has taken of a budget and not released."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self.size = 0

    def take(self, size: int, *, large: bool = False) -> None:
        """Take ``size`` bytes more, as ``MemoryBudget.take`` does. Raises QueueFull."""
        self.budget.take(size, large=large)
        self.size += size

    def release(self, _task: object = None) -> None:
        """Release all of it."""
        size, self.size = self.size, 0
        self.budget.release(size)


class WorkPool:
    """Work of one kind: ``width`` jobs at a time, in order of arrival.

    ``max_wait`` is how many seconds may pass before a job begins, by the estimated cost of those
    before it. ``memory`` is the budget that all pools share. The estimate has no wait for memory:
    what holds it may be a body that is still on its way, whose end nobody knows. Work whose turn
    has come while others hold the memory waits for it, and is refused once it has waited
    ``max_wait`` in all: so are those behind it, which don't each wait as long again. The threads of
    a pool that are ``low_priority`` get less of a busy core than the event loop.
    """

    def __init__(
        self,
        name: str,
        width: int,
        max_wait: float,
        memory: MemoryBudget,
        *,
        low_priority: bool = False,
    ) -> None:
        self.max_wait = max_wait
        self.memory = memory
        self._width = width
        self._places = asyncio.Semaphore(width)
        self._threads = ThreadPoolExecutor(width, name, _lower_priority if low_priority else None)
        self._waiting = 0.0  # estimated seconds of the jobs that have not begun
        self._running: dict[object, tuple[float, float]] = {}  # when begun, estimated seconds
        self._pace = 1.0  # measured seconds by estimated ones

    def wait_seconds(self) -> float:
        """Estimated seconds until a job that came now would begin."""
        now = time.perf_counter()
        rest = sum(
            max(0.0, seconds * self._pace - (now - begun))
            for begun, seconds in self._running.values()
        )
        return (rest + self._waiting * self._pace) / self._width

    def check(self) -> None:
        """Raise QueueFull if a job that came now would begin too late."""
        if self.wait_seconds() > self.max_wait:
            raise QueueFull(TOO_LATE)

    @asynccontextmanager
    async def turn(self, cost: Cost) -> AsyncIterator[None]:
        """Do work on the event loop in here, when its turn has come and its memory is free."""
        job = await self._begin(cost)
        try:
            yield
        finally:
            self._end(job, cost)

    async def in_thread(
        self, cost: Cost, function: Callable[..., Result], *arguments: object
    ) -> Result:
        """The result of ``function``, computed in a thread when its turn has come.

        A client that disconnects while it waits gives up its turn. Work that has begun is finished,
        and holds its thread and its memory until then.
        """
        job = await self._begin(cost)
        loop = asyncio.get_running_loop()
        try:
            # In the request's context, so that what is logged there has its id.
            run = copy_context().run
            working = loop.run_in_executor(self._threads, run, function, *arguments)
        except BaseException:
            self._end(job, cost)
            raise
        working.add_done_callback(lambda _: self._end(job, cost))
        return await asyncio.shield(working)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _begin(self, cost: Cost) -> object:
        # Work that is estimated to need more than the whole budget runs when nothing else does.
        size = min(cost.bytes, self.memory.most)
        self._waiting += cost.seconds
        give_up = time.perf_counter() + self.max_wait
        try:
            await self._places.acquire()
            try:
                await self.memory.wait(size, max(0.0, give_up - time.perf_counter()))
            except BaseException:
                self._places.release()
                raise
            if size > self.memory.reserve:
                self.memory.trim_heap()
        finally:
            self._waiting -= cost.seconds
        job = object()
        self._running[job] = (time.perf_counter(), cost.seconds)
        return job

    def _end(self, job: object, cost: Cost) -> None:
        begun, estimated = self._running.pop(job)
        if estimated > 0:
            low, high = PACE_RANGE
            measured = (time.perf_counter() - begun) / estimated
            self._pace += PACE_WEIGHT * (min(high, max(low, measured)) - self._pace)
        self.memory.release(min(cost.bytes, self.memory.most))
        self._places.release()


def small_work_reserve(memory: int) -> int:
    """The part of ``memory`` that is kept for small work."""
    return min(RESERVE_BYTES, memory // 4)


def _lower_priority() -> None:
    """Lower the priority of this thread, where each has its own (Linux)."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Resources:
    """All that the requests of one worker share: its memory, and its pools.

    ``bodies`` is the part of the memory for bodies. Large documents are parsed one at a time.
    Pictures that take tens of milliseconds to decode don't wait for those that take seconds, and
    long runs of a model (a saliency map) wait for neither. Compressed bodies are unpacked one at a
    time, and pages laid out.
    """

    def __init__(
        self,
        memory: int = 352 * MIB,
        bodies: int = 128 * MIB,
        max_wait: float = 2.0,
        trim_heap: Callable[[], None] = lambda: None,
    ) -> None:
        self.memory = MemoryBudget(memory, reserve=small_work_reserve(memory))
        self.memory.trim_heap = trim_heap
        self.bodies = MemoryBudget(bodies, within=self.memory)
        self.documents = WorkPool("documents", 1, max_wait, self.memory)
        self.photos = WorkPool("photos", 2, max_wait, self.memory)
        self.large_pictures = WorkPool(
            "large pictures", 1, max_wait, self.memory, low_priority=True
        )
        self.graphs = WorkPool("graphs", 2, max_wait, self.memory)
        self.unpacking = WorkPool("unpacking", 1, max_wait, self.memory, low_priority=True)
        self.pages = WorkPool("pages", 1, max_wait, self.memory, low_priority=True)

    def close(self) -> None:
        """Let the threads end."""
        for part in vars(self).values():
            if isinstance(part, WorkPool):
                part.close()
