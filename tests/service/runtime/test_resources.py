"""Memory is shared out, pools refuse what would begin too late, and nothing is lost on the way."""

import asyncio
import threading
import time

import pytest

from service.runtime.cost import Cost, json_elements
from service.runtime.errors import QueueFull
from service.runtime.resources import MemoryBudget, Resources, WorkPool


def test_elements_are_counted_by_what_they_cost() -> None:
    assert json_elements(b"[1,2,3]") == 2 + 9
    assert json_elements(b"[" + b"[1]," * 100 + b"[1]]") == 100 + 9 * 102
    assert json_elements(b'{"a":1,"b":2}') == 1 + 9 + 99
    assert json_elements(b'{"a":' * 1000) == 9000  # nested: no parser goes that deep


def test_who_waits_for_memory_gets_it_in_order_or_is_refused() -> None:
    async def scenario() -> list[str]:
        memory, got = MemoryBudget(100), []
        memory.take(80)

        async def ask(name: str, size: int, seconds: float) -> None:
            try:
                await memory.wait(size, seconds)
                got.append(name)
            except QueueFull:
                got.append(f"not {name}")

        asked = [asyncio.create_task(ask(*a)) for a in (("a", 90, 0.01), ("b", 60, 5), ("c", 5, 5))]
        await asyncio.sleep(0)
        asked.append(gone := asyncio.create_task(ask("gone", 30, 5)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0.05)
        assert got == ["not a"]  # and c, though there is room, does not overtake b
        memory.release(80)
        await asyncio.gather(*asked, return_exceptions=True)
        assert memory.used == 65
        return got

    assert asyncio.run(scenario()) == ["not a", "b", "c"]


def test_a_lane_refuses_what_would_begin_too_late() -> None:
    async def scenario() -> None:
        pool = WorkPool("test", 1, max_wait=2.0, memory=MemoryBudget(1000))
        go_on = threading.Event()
        pool.check()
        jobs = [
            asyncio.create_task(pool.in_thread(Cost(1.5, 600), go_on.wait, 10)) for _ in range(2)
        ]
        await asyncio.sleep(0.01)
        assert 2.5 < pool.wait_seconds() <= 3.0
        assert pool.memory.used == 600  # one at a time
        with pytest.raises(QueueFull):
            pool.check()
        go_on.set()
        await asyncio.gather(*jobs)
        pool.check()
        # Much quicker than was estimated: more is let in from now on.
        waiting = [asyncio.create_task(pool.in_thread(Cost(1.5, 1), go_on.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        assert pool.wait_seconds() < 2.5
        await asyncio.gather(*waiting)
        assert pool.memory.used == 0
        pool.close()

    asyncio.run(scenario())


def test_those_who_wait_for_memory_behind_each_other_are_refused_together() -> None:
    """What holds the memory may never end: they would wait as often as they are many."""

    async def scenario() -> None:
        memory = MemoryBudget(1000)
        memory.take(900)
        pool = WorkPool("test", 1, max_wait=1.0, memory=memory)
        started = time.perf_counter()
        jobs = [pool.in_thread(Cost(0.01, 600), str) for _ in range(20)]
        assert {type(r) for r in await asyncio.gather(*jobs, return_exceptions=True)} == {QueueFull}
        assert time.perf_counter() - started < 10
        assert memory.used == 900 and pool.wait_seconds() < 1e-6
        assert await pool.in_thread(Cost(0.01, 100), str, 1) == "1"
        pool.close()

    asyncio.run(scenario())


def test_work_whose_client_has_gone_keeps_its_memory_until_it_ends() -> None:
    async def scenario() -> None:
        pool = WorkPool("test", 1, max_wait=2.0, memory=MemoryBudget(1000))
        go_on = threading.Event()
        running = asyncio.create_task(pool.in_thread(Cost(1, 600), go_on.wait, 10))
        waiting = asyncio.create_task(pool.in_thread(Cost(1, 600), go_on.wait, 10))
        await asyncio.sleep(0.01)
        running.cancel()
        waiting.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert pool.memory.used == 600
        go_on.set()
        assert await pool.in_thread(Cost(1, 600), str, 1) == "1"
        assert pool.memory.used == 0
        assert pool.wait_seconds() == 0
        pool.close()

    asyncio.run(scenario())


def test_a_failure_gives_everything_back() -> None:
    async def scenario() -> None:
        resources = Resources()
        for _ in range(5):
            with pytest.raises(ValueError, match="invalid literal"):
                await resources.photos.in_thread(Cost(1, 600), int, "x")
            with pytest.raises(KeyError):
                async with resources.documents.turn(Cost(1, 600)):
                    raise KeyError
        assert resources.memory.used == 0
        resources.close()

    asyncio.run(scenario())
