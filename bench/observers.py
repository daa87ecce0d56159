"""What watching costs: metrics, the access log, and the times of a request's stages.

``python -m bench.observers`` asks the application for ``/gradient`` in turns, with everything that
watches and without. What counts is processor time, so that it also works on a busy machine. Of a
worker of the real server, loaded by wrk, it says what the same request takes over HTTP.
"""

import argparse
import asyncio
import gc
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import load
from bench.processes import Running

ROOT = Path(__file__).resolve().parent.parent
BODY = b'{"x": [0.1, 1.0, 3.0]}'
REQUEST = {
    "type": "http",
    "method": "POST",
    "path": "/gradient",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 50000),
}
WHOLE = {"type": "http.request", "body": BODY, "more_body": False}
TURN = 200  # requests
CONNECTIONS = 16


class Asking:
    """Asks an application for ``/gradient``, many times."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.status = 0

    async def one(self, application: Any) -> int:
        """The status of one answer."""
        await application({**REQUEST, "state": self.state}, self._receive, self._send)
        return self.status

    async def turn(self, application: Any) -> float:
        """Processor µs of a request."""
        from service.app import flush_records

        before = time.process_time()
        for _ in range(TURN):
            # As the server does: a task each.
            assert await asyncio.create_task(self.one(application)) == 200
        flush_records()  # so that this turn pays for its own
        return (time.process_time() - before) / TURN * 1e6

    async def unwatched(self, application: Any) -> float:
        """The same without log, metrics and stages; a request still has an id."""
        from service.runtime.observer import Observer
        from service.web.logs import RequestLog

        plain = RequestLog(application.app.app, (), enabled=False)
        with (
            patch("service.web.body.Stage", no_stage),
            patch("service.web.openapi.Stage", no_stage),
            patch("service.web.metrics.ModelMetrics.ran", Observer.ran),
        ):
            return await self.turn(plain)

    async def _receive(self) -> dict[str, Any]:
        return WHOLE

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


def no_stage(_name: str, nothing: Any = nullcontext()) -> Any:  # noqa: B008 — one for all
    """In place of ``Stage``."""
    return nothing


async def in_process(turns: int) -> tuple[float, float]:
    """Median processor µs of a request, watched and unwatched."""
    from service.app import create_app
    from service.settings import Settings

    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert reader.stdin is not None
    with redirect_stderr(reader.stdin):  # where the log goes: a pipe, as under Docker
        app = create_app(Settings(artifacts=ROOT / "artifacts", log_format="json"))
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    state: dict[str, Any] = {}
    lifespan = {"type": "lifespan", "state": state}
    service = asyncio.create_task(app(lifespan, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    await from_app.get()
    gc.freeze()  # as the supervisor does
    gc.set_threshold(20_000, 20, 50)
    asking = Asking(state)
    while await asking.one(app) != 200:  # until the models are loaded
        await asyncio.sleep(0.1)
    pairs = [(await asking.turn(app), await asking.unwatched(app)) for _ in range(turns + 1)][1:]
    await to_app.put({"type": "lifespan.shutdown"})
    await service
    reader.kill()
    watched, unwatched = zip(*pairs, strict=True)
    return statistics.median(watched), statistics.median(unwatched)


def over_http(seconds: float, folder: Path) -> float:
    """Processor µs that a worker takes for a request over HTTP."""
    command = [sys.executable, "-m", "service", "--port", "0", "--workers", "1"]
    file, log = folder / "body.json", folder / "log"
    file.write_bytes(BODY)
    with Running(command, {}, ROOT, log) as server:
        while (url := ready(log.read_text())) is None:
            if not server.alive():
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        pid = server.process.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        body = load.Body(file, "application/json")
        load.run(url + "/gradient", body, CONNECTIONS, 1)
        before = processor_seconds(worker)
        served = load.run(url + "/gradient", body, CONNECTIONS, seconds).served
        return (processor_seconds(worker) - before) / served * 1e6


def ready(log: str) -> str | None:
    """Where a server with this log is, once it is ready."""
    found = re.search(r"serving on (http://[0-9.:]+)", log)
    try:
        if found is not None and urllib.request.urlopen(found[1] + "/health/ready", timeout=5):
            return found[1]
    except OSError:
        pass
    return None


def processor_seconds(pid: str) -> float:
    """Processor time that the main thread of a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.observers", description=__doc__)
    parser.add_argument("--turns", type=int, default=100, help="of 200 requests each, in process")
    parser.add_argument("--seconds", type=float, default=5, help="of load over HTTP")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        http = over_http(options.seconds, Path(folder))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # as the service's own command sets it
        watched, unwatched = asyncio.run(in_process(options.turns))
    extra = watched - unwatched
    print(f"/gradient in process: {unwatched:.0f} µs; watched {watched:.0f} µs")
    print(f"/gradient over HTTP, watched: {http:.0f} µs of a worker")
    print(f"Watching takes {extra:.1f} µs: {extra / (http - extra):.1%} of a request over HTTP")


if __name__ == "__main__":
    main()
