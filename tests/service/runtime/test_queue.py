"""The queue: at once when idle, in turn when busy, bounded, and forgetful of clients who left."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from service.runtime.errors import QueueFull
from service.runtime.queue import TURN_SECONDS, Queue


class Doubler:
    """Stands for a session: doubles its input, notes the size of each run, dislikes negatives."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.row_seconds = 0.0

    def run(self, array: np.ndarray) -> list[np.ndarray]:
        self.runs.append(len(array))
        if (array < 0).any():
            raise ValueError("negative")
        return [array * 2]


def one(value: float) -> np.ndarray:
    return np.array([value])


def together(*waiting: Coroutine[Any, Any, Any]) -> list[Any]:
    async def gather() -> list[Any]:
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(gather())


def test_each_gets_its_own_answer_in_batches_that_pay() -> None:
    queue, session = Queue(64, batch=4), Doubler()
    answers = together(*(queue.run(session, one(i)) for i in range(10)))
    assert [a[0].tolist() for a in answers] == [[2 * i] for i in range(10)]
    assert session.runs == [1, 4, 4, 1]  # the first found it idle


def test_a_batch_takes_no_longer_than_a_turn() -> None:
    queue, session = Queue(64, batch=8), Doubler()
    session.row_seconds = TURN_SECONDS / 3
    answers = together(*(queue.run(session, one(i)) for i in range(8)))
    assert [a[0].tolist() for a in answers] == [[2 * i] for i in range(8)]
    assert session.runs == [1, 3, 3, 1]


def test_without_batching_each_runs_alone() -> None:
    queue, session = Queue(64, batch=1), Doubler()
    together(*(queue.run(session, one(i)) for i in range(5)))
    assert session.runs == [1] * 5


@pytest.mark.parametrize(
    ("requests", "order"),
    [
        (1, ["read 0", "ran 0", "all have begun"]),
        (3, ["read 0", "read 1", "read 2", "all have begun", "ran 0", "ran 1", "ran 2"]),
    ],
)
def test_a_request_runs_at_once_if_alone_else_after_all_have_been_read(
    requests: int, order: list[str]
) -> None:
    queue = Queue(64, batch=1)
    happened: list[str] = []

    async def serve(number: int) -> None:
        queue.arriving -= 1
        with queue.place():
            happened.append(f"read {number}")
            await queue.do(happened.append, f"ran {number}")

    async def scenario() -> None:
        queue.arriving = requests
        tasks = [asyncio.create_task(serve(i)) for i in range(requests)]
        asyncio.get_running_loop().call_soon(happened.append, "all have begun")
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert happened == order


def test_one_failure_fails_no_neighbour() -> None:
    queue, session = Queue(64, batch=8), Doubler()
    answers = together(*(queue.run(session, one(i)) for i in (0, 1, -1, 3)))
    assert isinstance(answers[2], ValueError)
    assert [a[0].tolist() for i, a in enumerate(answers) if i != 2] == [[0], [2], [6]]


def test_different_models_are_not_mixed() -> None:
    queue, first, second = Queue(64, batch=8), Doubler(), Doubler()
    together(*(queue.run(session, one(1)) for session in (first, second, second, first, first)))
    assert first.runs == [1, 2]
    assert second.runs == [2]


def test_a_client_that_goes_away_gives_up_its_turn() -> None:
    queue, session = Queue(64, batch=1), Doubler()

    async def scenario() -> None:
        tasks = [asyncio.create_task(queue.run(session, one(i))) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    assert session.runs == [1, 1]


def test_other_work_takes_its_turn_and_is_not_batched() -> None:
    queue, session = Queue(64, batch=8), Doubler()

    def fail() -> None:
        raise KeyError("no")

    answers = together(
        queue.do(sorted, [2, 1]),
        queue.run(session, one(1)),
        queue.do(sorted, [4, 3]),
        queue.do(fail),
        queue.run(session, one(2)),
        queue.run(session, one(3)),
    )
    assert answers[0] == [1, 2]
    assert answers[2] == [3, 4]
    assert isinstance(answers[3], KeyError)
    assert session.runs == [1, 2]


def work_of(queue: Queue, places: dict[str, int], jobs: int) -> list[str]:
    """In which order requests with so many ``places`` do their jobs, one job a turn."""
    done: list[str] = []

    async def request(name: str) -> None:
        with queue.place(places[name]):
            for _ in range(jobs):
                await queue.do(done.append, name)

    together(*(request(name) for name in places))
    return done


def test_who_came_first_is_finished_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.queue.TURN_SECONDS", 0)
    order = work_of(Queue(64, batch=1), {"a": 1, "b": 1, "c": 1}, jobs=2)
    assert order == ["a", "a", "b", "b", "c", "c"]


def test_a_large_request_does_not_hold_up_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.queue.TURN_SECONDS", 0)
    order = work_of(Queue(64, batch=1), {"large": 5, "b": 1, "c": 1}, jobs=4)
    assert order.index("b") < 3
    assert order[-1] == "large"


def test_what_is_long_runs_beside_the_loop() -> None:
    queue, session = Queue(64, batch=1), Doubler()
    session.row_seconds = 1.0
    threads: list[str] = []

    def run(array: np.ndarray) -> list[np.ndarray]:
        threads.append(threading.current_thread().name)
        return [array * 2]

    session.run = run  # type: ignore[method-assign]
    ((answer,),) = together(queue.run(session, one(2)))
    assert answer.tolist() == [4]
    assert threads[0].startswith("graphs")


def test_places_are_bounded_and_come_back() -> None:
    queue = Queue(2, batch=1)
    with queue.place(), queue.place():
        with pytest.raises(QueueFull):
            queue.check()
        with pytest.raises(QueueFull), queue.place():
            pass
    with pytest.raises(RuntimeError), queue.place(2):
        raise RuntimeError
    assert queue.taken == 0
    with queue.place(5):  # larger than the queue, but alone
        assert queue.taken == 5


def test_the_loop_goes_on_between_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.queue.TURN_SECONDS", 0)
    queue, session = Queue(64, batch=1), Doubler()
    seen: list[int] = []

    async def watch() -> None:
        for _ in range(4):
            seen.append(len(session.runs))
            await asyncio.sleep(0)

    together(*(queue.run(session, one(i)) for i in range(4)), watch())
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
