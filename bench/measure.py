"""One server from start to stop: time to the first right answer, load, memory."""

import http.client
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Measured, run
from bench.processes import Memory, Running
from bench.servers import Server
from bench.subjects import Question, right

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 60  # seconds
ANSWER_LIMIT = 60
RIGHT_IN_A_ROW = 10
SETTLE_LIMIT = 20


@dataclass(frozen=True)
class Step:
    """One load: a question, asked over some connections for some seconds."""

    question: Question
    connections: int
    seconds: float


@dataclass
class Outcome:
    """What became of one server. ``failure`` says in words why there is nothing more."""

    name: str
    role: str
    endpoint: str
    failure: str | None = None
    start_seconds: float | None = None
    loads: dict[str, list[Measured]] = field(default_factory=dict)
    beside: dict[str, list[Measured]] = field(default_factory=dict)
    """What our own service gave right before: a machine's speed drifts from minute to minute."""
    precision: str | None = None
    """Of the graph of probabilities that serves, where the server says so."""
    memory_at_start: Memory | None = None
    memory: Memory | None = None
    """After all loads, the largest pictures included."""
    answers: dict[str, Any] = field(default_factory=dict, repr=False)


class WrongAnswer(Exception):
    """The server answers, but not with what the graph gives."""


class Refused(Exception):
    """The server answers with an error status, as many do while they start."""


class NoStart(Exception):
    """The server did not answer in time, or ended."""


def measure(
    server: Server,
    steps: Sequence[Step],
    substitutes: Mapping[str, str],
    environment: Mapping[str, str],
    scratch: Path,
) -> Outcome:
    """Start the server, check its answers, load it step by step and stop it.

    Never raises for what is the server's own failure: that is in the outcome.
    """
    outcome = Outcome(server.name, server.role, server.endpoint)
    port = free_port()
    filled = {**substitutes, "python": sys.executable, "port": str(port)}
    command = [part.format_map(filled) for part in server.command]
    path = server.path.format_map(filled)
    environment = {
        **environment,
        "PYTHONPATH": str(ROOT),
        "BENCH_PORT": str(port),
        **server.environment,
    }
    log = scratch / "server.log"
    started = time.perf_counter()
    with Running(command, environment, ROOT, log) as running:
        try:
            ready = _wait_until_right(running, port, path, server, steps[0].question)
            outcome.start_seconds = ready - started
            outcome.memory_at_start = running.memory()
            if server.details:
                outcome.precision = _precision(port, server.details.format_map(filled))
            for question in dict.fromkeys(step.question.name for step in steps):
                step = next(step for step in steps if step.question.name == question)
                running.settle(SETTLE_LIMIT)  # or a load before may have it refused
                outcome.answers[question] = _check(port, path, server, step.question)
                run(f"http://127.0.0.1:{port}{path}", step.question.body, 4, 1)  # warms up
                outcome.loads[question] = []
                for step in (s for s in steps if s.question.name == question):
                    running.settle(SETTLE_LIMIT)
                    measured = run(
                        f"http://127.0.0.1:{port}{path}",
                        step.question.body,
                        step.connections,
                        step.seconds,
                    )
                    outcome.loads[question].append(measured)
            outcome.memory = running.memory()
        except (WrongAnswer, Refused, NoStart) as error:
            outcome.failure = str(error)
        except (OSError, LookupError, http.client.HTTPException, RuntimeError) as error:
            outcome.failure = f"{type(error).__name__}: {error}; {running.last_words()}"
    return outcome


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(port: int, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _precision(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=ANSWER_LIMIT) as response:
        return str(json.load(response)["functions"]["probabilities"]["precision"])


def _check(port: int, path: str, server: Server, question: Question) -> Any:
    status, content = post(port, path, question.body.file.read_bytes(), question.body.content_type)
    if status != 200:
        raise Refused(f"{question.name}: status {status}: {content[:200]!r}")
    try:
        answer = json.loads(content)
        found = server.found(answer)
    except (ValueError, LookupError, TypeError):
        raise WrongAnswer(f"{question.name}: unexpected answer {content[:200]!r}") from None
    if not right(found, question.expected):
        raise WrongAnswer(
            f"{question.name}: answered {str(found)[:60]}, the graph gives "
            f"{str(question.expected)[:60]}"
        )
    return answer


def _wait_until_right(
    running: Running, port: int, path: str, server: Server, question: Question
) -> float:
    """The moment of the first right answer after which there were right answers only.

    Each is asked for on a connection of its own: of several workers, which listen on one port, the
    first may be ready before the others are.
    """
    deadline = time.monotonic() + START_LIMIT
    last = "nothing listens"
    ready: list[float] = []
    while time.monotonic() < deadline:
        if not running.alive():
            raise NoStart(f"it ended by itself: {running.last_words()}")
        try:
            _check(port, path, server, question)
        except (OSError, http.client.HTTPException, Refused) as error:
            last = str(error)
            ready.clear()
            time.sleep(0.02)
        else:
            ready.append(time.perf_counter())
            if len(ready) == RIGHT_IN_A_ROW:
                return ready[0]
    raise NoStart(f"no answer within {START_LIMIT} s ({last}): {running.last_words()}")


def cores(count: int) -> list[int]:
    """Keep this process and all it starts to the first ``count`` cores; returns them."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, chosen)
    return chosen
