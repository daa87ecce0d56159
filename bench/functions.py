"""What a derivative costs beside its value, and UM-Bridge's calls beside its own server.

    python -m bench.functions [--umbridge .venv/bench/bin/python] [--rounds 40]

Publishes two networks with random weights, serves them with one worker, and asks on one kept-open
connection, a batch of one kind and a batch of the other in turn. A ratio is the median over the
rounds of one batch's time by the other's; beside it stands that of the processor time which the
server took, which holds on a busy machine too. UM-Bridge's own server runs the same graphs, in the
Python that ``--umbridge`` names; without the package there it is left out.

Both servers as they are documented (ours has a worker for each core) are then loaded by wrk in
turn, for requests/s: these need an idle machine.

Needs the project's extra ``training``.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.load import Body
from bench.processes import Running
from bench.turns import Load, in_turn
from gradserve import Publication, publish

ROOT = Path(__file__).resolve().parents[1]
BATCH = 100  # requests, between two looks at the clocks
PORT, UMBRIDGE_PORT, ALL_PORT = 8791, 8792, 8793
COMMON: dict[str, Any] = {"name": "small", "input": [[0.5, -1.0, 2.0]], "config": {}}
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Evaluate", {}),
    ("Gradient", {"outWrt": 0, "inWrt": 0, "sens": [1, 2]}),
)
CONNECTIONS = (1, 8)  # of wrk
SLICES, SLICE_SECONDS = 5, 2.0
START_SECONDS = 120


class Asked:
    """One request, asked again and again of one server."""

    def __init__(self, server: Running, port: int, path: str, document: Any) -> None:
        self.server, self.path, self.body = server, path, json.dumps(document)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def answer(self) -> Any:
        """The answer. Raises RuntimeError if it isn't one."""
        self.connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.path}: {answer.status}: {content[:300]!r}")
        return json.loads(content)

    def batch(self) -> tuple[float, float]:
        """Seconds by the clock, and of the server's processor, for ``BATCH`` requests."""
        used, started = self.server.cpu_seconds(), time.perf_counter()
        for _ in range(BATCH):
            self.answer()
        return time.perf_counter() - started, self.server.cpu_seconds() - used


def compare(what: str, first: Asked, second: Asked, rounds: int) -> None:
    """Print how many times as long ``first`` takes as ``second``."""
    for each in (first, second):
        each.batch()  # warm
    pairs = [(first.batch(), second.batch()) for _ in range(rounds)]
    clock = statistics.median(one[0] / other[0] for one, other in pairs)
    mine, its = (sum(pair[place][1] for pair in pairs) for place in (0, 1))
    each = 1000 / BATCH / rounds
    print(
        f"{what}: {clock:.2f} times by the clock; processor {mine * each:.3f} ms against "
        f"{its * each:.3f} ms a request, {mine / its:.2f} times"
    )


def networks(root: Path) -> None:
    """3 → 2 with its Jacobian and vjp, 100 → 1 with hvp, both in float64."""
    torch.manual_seed(0)
    for name, sizes, derivatives in (
        ("small", (3, 16, 2), ("jacobian", "vjp")),
        ("wide", (100, 64, 1), ("hvp",)),
    ):
        inputs, hidden, outputs = sizes
        net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
        x = torch.randn(16, inputs, dtype=torch.float64)
        publish(Publication(net.double(), {"x": x}, ("y",), derivatives), name, root)


@contextmanager
def started(command: list[str], port: int, path: str, folder: Path) -> Iterator[Running]:
    """The server, once it answers a GET of ``path``."""
    log = folder / f"{port}.log"
    with Running(command, {"OMP_NUM_THREADS": "1"}, ROOT, log) as server:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, path):
            if not server.alive() or time.monotonic() > deadline:
                raise SystemExit(f"{command} does not answer: {server.last_words()}")
            time.sleep(0.2)
        yield server


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def derivatives(server: Running, rounds: int) -> None:
    """A Jacobian of 3 → 2 by its value; hvp of 100 inputs by its value."""
    random = torch.Generator().manual_seed(1)
    for name, size, output in (("small", 3, "jacobian_y_x"), ("wide", 100, "hvp_x")):
        x, tangent = torch.randn(2, 1, size, generator=random).tolist()
        given = {"x": x}

        def asked(inputs: dict[str, Any], wanted: str, model: str = name) -> Asked:
            document = {"model": model, "inputs": inputs, "outputs": [wanted]}
            return Asked(server, PORT, "/evaluate", document)

        more = {"tangent_x": tangent} if output == "hvp_x" else {}
        derivative, value = asked({**given, **more}, output), asked(given, "y")
        compare(f"{output} of {size} inputs by its value", derivative, value, rounds)


def umbridge(server: Running, python: str, graphs: Path, folder: Path, rounds: int) -> None:
    """Evaluate and Gradient by UM-Bridge's own server and by ours, the same graphs."""
    if subprocess.run(
        [python, "-c", "import umbridge"], capture_output=True, check=False
    ).returncode:
        print(f"UM-Bridge is not installed for {python}: not compared; --umbridge names another")
        return
    command = [python, "-m", "bench.peers.umbridge_function", str(graphs), str(UMBRIDGE_PORT)]
    with started(command, UMBRIDGE_PORT, "/Info", folder) as theirs:
        for call, more in CALLS:
            its = Asked(theirs, UMBRIDGE_PORT, f"/{call}", {**COMMON, **more})
            mine = Asked(server, PORT, f"/umbridge/{call}", {**COMMON, **more})
            if str(its.answer()) != str(mine.answer()):
                raise SystemExit(f"{call}: {its.answer()} and {mine.answer()} differ")
            compare(f"UM-Bridge's own {call} by ours", its, mine, rounds)
        with started(serve(graphs.parents[1], ALL_PORT), ALL_PORT, "/health/ready", folder) as ours:
            for call, more in CALLS:
                body = folder / f"{call}.json"
                body.write_text(json.dumps({**COMMON, **more}))
                for connections in CONNECTIONS:
                    loads = (
                        Load(ours, f"http://127.0.0.1:{ALL_PORT}/umbridge/{call}"),
                        Load(theirs, f"http://127.0.0.1:{UMBRIDGE_PORT}/{call}"),
                    )
                    together(call, loads, Body(body, "application/json"), connections)


def together(call: str, loads: tuple[Load, Load], body: Body, connections: int) -> None:
    """Print the requests/s of two servers, and what a request takes, loaded in turn."""
    found = in_turn(loads, body, connections, SLICES, SLICE_SECONDS)
    mine, its = found.requests_per_s
    costs = [1e6 * seconds for seconds in found.core_seconds]
    print(
        f"{call} at {connections} connections: ours {mine:.0f} requests/s, UM-Bridge's own "
        f"{its:.0f}, {found.faster:.2f} times; processor {costs[0]:.0f} and {costs[1]:.0f} µs a "
        f"request, a core of ours answers {found.cheaper:.2f} times as many"
    )


def serve(artifacts: Path, port: int, *options: str) -> list[str]:
    """The command of our server."""
    command = [sys.executable, "-m", "gradserve", "serve", *options, "--port", str(port)]
    return [*command, "--artifacts", str(artifacts)]


def main() -> None:
    """Publish, serve, ask."""
    parser = argparse.ArgumentParser(prog="python -m bench.functions")
    parser.add_argument("--umbridge", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks(folder / "artifacts")
        command = serve(folder / "artifacts", PORT, "--workers", "1")
        with started(command, PORT, "/health/ready", folder) as server:
            derivatives(server, options.rounds)
            graphs = folder / "artifacts" / "small" / "1"
            umbridge(server, options.umbridge, graphs, folder, options.rounds)


if __name__ == "__main__":
    main()
