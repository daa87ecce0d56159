"""Two servers loaded by wrk in turn, a slice each: their ratio holds though a machine drifts."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from bench.load import Body, run
from bench.processes import Running


@dataclass(frozen=True)
class Load:
    """A server and where it is asked."""

    server: Running
    url: str


@dataclass(frozen=True)
class Rates:
    """What two servers did in the same slices: the first against the second."""

    requests_per_s: tuple[float, float]
    """The median of the slices."""
    faster: float
    """How many times as many requests/s the first gave: the median of the slices' ratios."""
    core_seconds: tuple[float, float]
    """Processor time of a request, s. It holds on a busy machine too."""
    p99_ms: tuple[float, float]
    """The median of the slices."""

    @property
    def cheaper(self) -> float:
        """How many times as many requests a core's time is enough for in the first."""
        return self.core_seconds[1] / self.core_seconds[0]


def in_turn(
    loads: tuple[Load, Load],
    body: Body,
    connections: int,
    slices: int,
    seconds: float,
    *,
    pause_others: bool = False,
) -> Rates:
    """Load both so many times, each for ``seconds``, after one turn that is not counted.

    With ``pause_others`` the one that isn't loaded is stopped meanwhile (SIGSTOP): some servers are
    busy when nobody asks. Raises SystemExit if a server refuses or breaks off anything.
    """
    rows: list[tuple[float, float]] = []
    slowest: list[tuple[float, float]] = []
    used, served = [0.0, 0.0], [0, 0]
    for turn in range(slices + 1):
        found = []
        for place, load in enumerate(loads):
            other = loads[1 - place].server
            pause: AbstractContextManager[None] = other.stopped() if pause_others else nullcontext()
            with pause:
                before = load.server.cpu_seconds()
                measured = run(load.url, body, connections, seconds)
                used_now = load.server.cpu_seconds() - before
            if measured.refused or measured.broken or not measured.served:
                raise SystemExit(f"{load.url}: {measured}; {load.server.last_words()}")
            found.append(measured)
            if turn:
                used[place] += used_now
                served[place] += measured.served
        if turn:
            rows.append((found[0].requests_per_s, found[1].requests_per_s))
            slowest.append((found[0].p99_ms, found[1].p99_ms))
    return Rates(
        requests_per_s=_each(statistics.median, rows),
        faster=statistics.median(first / second for first, second in rows),
        core_seconds=(used[0] / served[0], used[1] / served[1]),
        p99_ms=_each(statistics.median, slowest),
    )


def _each(
    what: Callable[[list[float]], float], rows: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    return what([row[0] for row in rows]), what([row[1] for row in rows])
