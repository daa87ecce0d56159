"""What a request may cost: JSON and pictures that take all they can, beside people who ask little.

In short here, for who is served and for memory; ``make soak`` runs it for 30 s and holds the
latencies as well.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.hostile import costly
from tests.hostile.load import Connection, Tally
from tests.hostile.process import forget_peak, peak_mib, resident_mib
from tests.hostile.wire import exchange
from tests.server_process import ROOT, ServerProcess

LONG = "GRADSERVE_LONG" in os.environ
SECONDS = 30.0 if LONG else 10.0
MIB_ABOVE = 450e6 / 2**20  # of a worker, above its size with its models loaded
# 99 of 100 innocent requests, s. In `make soak` only: elsewhere the machine does other things.
LATENCY = {"/predict": 0.1, "/classify": 0.25, "/health/live": 0.25}
REFUSED_SECONDS = 0.1  # of 99 of 100 refusals, from the end of the body; in `make soak` as well
PAUSE_SECONDS = 0.02  # of an innocent client


@pytest.fixture(scope="module")
def size(server: ServerProcess) -> float:
    """MiB of the worker with its models loaded, before it was asked anything."""
    (worker,) = server.workers()
    return resident_mib(worker)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One worker over the artifacts of the repository."""
    root = tmp_path_factory.mktemp("cost") / "artifacts"
    root.symlink_to(ROOT / "artifacts")
    with ServerProcess(root, access_log=LONG).wait_ready() as running:
        yield running


async def person(port: int, end: float, request: bytes, tally: Tally) -> None:
    """Ask for little, now and then, as one who knows nothing of the others."""
    connection = await Connection.open(port)
    while (started := time.perf_counter()) < end:
        try:
            status, _ = await asyncio.wait_for(connection.ask(request), 60)
        except EOFError:
            status = 0
            connection = await Connection.open(port)
        tally.add(status, time.perf_counter() - started)
        await asyncio.sleep(PAUSE_SECONDS)
    connection.close()


def test_each_is_answered_when_it_is_alone(server: ServerProcess, size: float) -> None:
    (worker,) = server.workers()
    wrong, peaks = {}, {}
    for name, (sent, statuses) in costly.as_requests().items():
        forget_peak(worker)
        answer = exchange(server.port, sent)
        peaks[name] = round(peak_mib(worker) - size)
        if answer.status not in statuses - {429}:
            wrong[name] = (answer.status, answer.body[:300])
    print(peaks)
    assert not wrong
    assert max(peaks.values()) < MIB_ABOVE, peaks
    assert server.workers() == [worker]


def test_what_would_begin_too_late_is_refused_before_the_work(server: ServerProcess) -> None:
    """Whoever is refused learns it while what he would have waited for is still worked on."""
    sent, _ = costly.as_requests()["PNG, 50 Mpx, 16 bits"]
    answered: list[int] = []

    async def one() -> None:
        connection = await Connection.open(server.port)
        status, _ = await asyncio.wait_for(connection.ask(sent), 120)
        answered.append(status)
        connection.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(12)))

    asyncio.run(all_of_them())
    assert set(answered) == {200, 429}
    assert answered[-1] == 200, answered
    # And afterwards there is room again.
    assert exchange(server.port, costly.innocent()["a photo"]).status == 200


def refusal_seconds(log: str) -> list[float]:
    """How long after the end of its body each request was refused with 429, in order."""
    records = (json.loads(line) for line in log.splitlines() if '"status":429' in line)
    found = [record for record in records if "stages_ms" in record]
    return sorted((each["ms"] - each["stages_ms"].get("read", 0)) / 1e3 for each in found)


def test_costly_requests_take_no_more_than_is_there(server: ServerProcess, size: float) -> None:
    (worker,) = server.workers()
    forget_peak(worker)
    innocent = costly.innocent()
    tallies = {name: Tally(SECONDS) for name in innocent}

    async def people() -> None:
        end = time.perf_counter() + SECONDS
        await asyncio.gather(
            *(person(server.port, end, innocent[name], tallies[name]) for name in innocent)
        )

    # The attackers in a process of their own: what takes it long is no fault of the server.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        right = other.submit(costly.right_statuses).result()  # and all of it is made
        attacking = other.submit(costly.attack, server.port, SECONDS)
        asyncio.run(people())
        seen = attacking.result()
    above = peak_mib(worker) - size
    lines = [
        f"{name}: { ({s: len(v) for s, v in tally.latencies.items()}) }, "
        f"p50 {1e3 * tally.quantile(200, 0.5):.0f} p99 {1e3 * tally.quantile(200, 0.99):.0f} ms"
        for name, tally in tallies.items()
    ]
    lines += [f"  {name}: {dict(statuses)}" for name, statuses in seen.items()]
    report = "\n".join([f"{size:.0f} MiB, at most {above:.0f} above", *lines])
    print(report)
    assert server.workers() == [worker], server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()
    assert above < MIB_ABOVE, report
    for name, tally in tallies.items():
        assert set(tally.latencies) <= {200, 429}, report
        assert tally.count(200), report
        if name.startswith(("/health", "/metrics")):
            assert not tally.count(429), report
    for name, statuses in seen.items():
        assert statuses.keys() <= right[name], f"{name}\n{report}"
    if LONG:
        for name, most in LATENCY.items():
            assert tallies[name].quantile(200, 0.99) <= most, report
        refused = refusal_seconds(server.log.read_text())
        assert refused
        print(
            f"{len(refused)} refusals, 99 of 100 within {refused[int(0.99 * len(refused))]:.3f} s"
        )
        assert refused[int(0.99 * len(refused))] <= REFUSED_SECONDS
