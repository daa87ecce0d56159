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
from itertools import groupby
from pathlib import Path
from typing import Any, Self

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
    """What our own service gave right before and right after those that are compared."""
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


FAILURES = (
    *(WrongAnswer, Refused, NoStart),
    *(OSError, LookupError, http.client.HTTPException, RuntimeError),
)


class Serving:
    """A server that runs, and is asked and loaded over the loopback address."""

    def __init__(
        self,
        server: Server,
        substitutes: Mapping[str, str],
        environment: Mapping[str, str],
        scratch: Path,
    ) -> None:
        self.server = server
        self.port = free_port()
        self.filled = {**substitutes, "python": sys.executable, "port": str(self.port)}
        self.path = server.path.format_map(self.filled)
        self.running = Running(
            [part.format_map(self.filled) for part in server.command],
            {
                **environment,
                "PYTHONPATH": str(ROOT),
                "BENCH_PORT": str(self.port),
                **server.environment,
            },
            ROOT,
            scratch / "server.log",
        )

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        self.running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def wait_until_right(self, question: Question) -> float:
        """Seconds from the start to the first right answer after which there were right ones only.

        Each is asked for on a connection of its own: of several workers, which listen on one port,
        the first may be ready before the others are.
        """
        deadline = time.monotonic() + START_LIMIT
        last = "nothing listens"
        ready: list[float] = []
        while time.monotonic() < deadline:
            if not self.running.alive():
                raise NoStart(f"it ended by itself: {self.running.last_words()}")
            try:
                self.check(question)
            except (OSError, http.client.HTTPException, Refused) as error:
                last = str(error)
                ready.clear()
                time.sleep(0.02)
            else:
                ready.append(time.perf_counter())
                if len(ready) == RIGHT_IN_A_ROW:
                    return ready[0] - self.started
        raise NoStart(f"no answer within {START_LIMIT} s ({last}): {self.running.last_words()}")

    def check(self, question: Question) -> Any:
        """Its answer to one request. Raises Refused or WrongAnswer."""
        body = question.body
        status, content = post(
            self.port, question.path or self.path, body.file.read_bytes(), body.content_type
        )
        if status != 200:
            raise Refused(f"{question.name}: status {status}: {content[:200]!r}")
        try:
            answer = json.loads(content)
            found = self.server.found(answer)
        except (ValueError, LookupError, TypeError):
            raise WrongAnswer(f"{question.name}: unexpected answer {content[:200]!r}") from None
        if not right(found, question.expected):
            raise WrongAnswer(
                f"{question.name}: answered {str(found)[:60]}, the graph gives "
                f"{str(question.expected)[:60]}"
            )
        return answer

    def warm_up(self, question: Question) -> Any:
        """Its answer, then a second of load."""
        self.running.settle(SETTLE_LIMIT)  # or a load before may have it refused
        answer = self.check(question)
        self._run(question, 4, 1)
        return answer

    def load(self, step: Step) -> Measured:
        """One load, once it has worked off the one before."""
        self.running.settle(SETTLE_LIMIT)
        return self._run(step.question, step.connections, step.seconds)

    def precision(self) -> str | None:
        """Of the graph of probabilities that serves, where the server says so."""
        if not self.server.details:
            return None
        url = f"http://127.0.0.1:{self.port}{self.server.details.format_map(self.filled)}"
        with urllib.request.urlopen(url, timeout=ANSWER_LIMIT) as response:
            return str(json.load(response)["functions"]["probabilities"]["precision"])

    def _run(self, question: Question, connections: int, seconds: float) -> Measured:
        url = f"http://127.0.0.1:{self.port}{question.path or self.path}"
        return run(url, question.body, connections, seconds)


class Beside:
    """Our own service while another server runs: loaded right before and right after those loads
    of the other that it is held against, since a machine's speed drifts from minute to minute.

    What fails here is not the other's failure: it is said, and not measured.
    """

    def __init__(self, serving: Serving, steps: Sequence[Step]) -> None:
        self.serving = serving
        self.steps = list(steps)

    def __enter__(self) -> Self:
        self.serving.__enter__()
        try:
            self.serving.wait_until_right(self.steps[0].question)
        except FAILURES as error:
            print(f"our own service did not start beside: {error}", file=sys.stderr)
            self.steps = []
        return self

    def __exit__(self, *error: Any) -> None:
        self.serving.__exit__(*error)

    def around(self, step: Step, other: Serving) -> tuple[Measured, dict[str, list[Measured]]]:
        """What the other gives, and what ours gave before and after it, by our question."""
        own = [
            each
            for each in self.steps
            if (each.question.against or each.question.name) == step.question.name
            and each.connections == step.connections
        ]
        before = {each.question.name: self._load(each, other, warm_up=True) for each in own}
        measured = other.load(step)
        after = {each.question.name: self._load(each, other) for each in reversed(own)}
        return measured, {name: before[name] + after[name] for name in before}

    def _load(self, step: Step, other: Serving, *, warm_up: bool = False) -> list[Measured]:
        """One load of ours, the other stopped meanwhile. Empty if it failed or served nothing."""
        try:
            with other.running.stopped():
                if warm_up:
                    self.serving.warm_up(step.question)
                measured = self.serving.load(step)
        except FAILURES as error:
            print(f"our own service failed beside {other.server.name}: {error}", file=sys.stderr)
            return []
        return [measured] if measured.served else []


def measure(
    server: Server,
    steps: Sequence[Step],
    substitutes: Mapping[str, str],
    environment: Mapping[str, str],
    scratch: Path,
    beside: Beside | None = None,
) -> Outcome:
    """Start the server, check its answers, load it step by step and stop it.

    Never raises for what is the server's own failure: that is in the outcome.
    """
    outcome = Outcome(server.name, server.role, server.endpoint)
    with Serving(server, substitutes, environment, scratch) as serving:
        try:
            outcome.start_seconds = serving.wait_until_right(steps[0].question)
            outcome.memory_at_start = serving.running.memory()
            outcome.precision = serving.precision()
            for name, group in groupby(steps, key=lambda step: step.question.name):
                loads = list(group)
                outcome.answers[name] = serving.warm_up(loads[0].question)
                outcome.loads[name], outcome.beside[name] = [], []
                for step in loads:
                    if beside is None:
                        outcome.loads[name].append(serving.load(step))
                        continue
                    measured, ours = beside.around(step, serving)
                    outcome.loads[name].append(measured)
                    for own, found in ours.items():
                        outcome.beside.setdefault(own, []).extend(found)
            outcome.memory = serving.running.memory()
        except (WrongAnswer, Refused, NoStart) as error:
            outcome.failure = str(error)
        except FAILURES as error:
            outcome.failure = f"{type(error).__name__}: {error}; {serving.running.last_words()}"
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


def cores(count: int) -> list[int]:
    """Keep this process and all it starts to the first ``count`` cores; returns them."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, chosen)
    return chosen
