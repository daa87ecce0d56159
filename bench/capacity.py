"""How many nodes a load needs: ``python -m bench.capacity``. See docs/scaling.md.

Requests arrive at random (a Poisson process), each for a worker of its own choice, who answers one
after another. How long an answer takes is drawn from what was measured: the mean is that of
``bench/README.md`` at 16 connections (a core's time for a request, the load generator's share
included), the spread that of the 50th and 99th percentile at one connection, as a lognormal
distribution. ``--record`` measures a service of your own, and ``--times`` draws from that instead.

    python -m bench.capacity --today 5e6 --peak 2 --cores 8     your load, your machines
    python -m bench.capacity --record http://127.0.0.1:8000/gradient --body '{"x": 3}' times.txt
    python -m bench.capacity --times times.txt
    python -m bench.capacity --write                            renew the tables in docs/scaling.md
"""

import argparse
import heapq
import http.client
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
README = ROOT / "bench" / "README.md"
DOCUMENT = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- capacity -->", "<!-- end of capacity -->"

DAY = 86_400  # seconds
BENCH_CORES = 2  # of the results in README.md
REQUESTS = 200_000  # simulated at a time
WARM_UP = 0.1  # of them are not counted: the queue is empty at first
TIMES = (1, 10, 100, 10_000)
P99_OF_NORMAL = 2.3263
# Sections of README.md and what they are called here.
KINDS = {
    "/gradient, 3 x": "### `/gradient`: 3 x",
    "/classify, 2 KB PNG": "### `/classify`: 2 KB PNG, 32×32",
    "/classify, 640×480 JPEG": "### `/classify`: 640×480 JPEG",
    "/classify, 12-megapixel JPEG": "### `/classify`: 12-megapixel JPEG, 4000×3000",
}
SLOW = 4
MAIN = "/classify, 2 KB PNG"

Seconds = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Seconds]


@dataclass(frozen=True)
class Kind:
    """A request: its mean time on a core in seconds, and how to draw times of that mean."""

    name: str
    mean: float
    draw: Draw


@dataclass(frozen=True)
class Answered:
    """What the simulated requests saw, in seconds; and the share of time that workers worked."""

    mean_wait: float
    p50: float
    p99: float
    busy: float


def simulate(
    rate: float, draw: Draw, workers: int, *, requests: int = REQUESTS, seed: int = 0
) -> Answered:
    """``workers`` who take from one queue, first come, first served; ``rate`` is arrivals/s."""
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.exponential(1 / rate, requests))
    service = draw(generator, requests)
    free = [0.0] * workers
    waits = np.empty(requests)
    for index, (arrival, seconds) in enumerate(
        zip(arrivals.tolist(), service.tolist(), strict=True)
    ):
        start = max(arrival, free[0])
        heapq.heapreplace(free, start + seconds)
        waits[index] = start - arrival
    counted = slice(int(requests * WARM_UP), None)
    total = waits[counted] + service[counted]
    p50, p99 = np.quantile(total, [0.5, 0.99])
    busy = float(service.sum() / (workers * (arrivals[-1] - arrivals[0])))
    return Answered(float(waits[counted].mean()), float(p50), float(p99), busy)


def lognormal(mean: float, p50: float, p99: float) -> Draw:
    """Times of that mean, spread as the two percentiles are."""
    sigma = math.log(p99 / p50) / P99_OF_NORMAL
    return lambda generator, n: generator.lognormal(math.log(mean) - sigma**2 / 2, sigma, n)


def measured(times: Seconds) -> Draw:
    """Drawn from the measured times themselves."""
    return lambda generator, n: generator.choice(times, n)


def published(text: str) -> list[Kind]:
    """The kinds of requests in the results of README.md."""
    kinds = []
    for name, heading in KINDS.items():
        section = text.partition(heading + "\n")[2].partition("\n### ")[0]
        row = re.search(r"^\| gradserve \| ours \| (.*) \|$", section, re.MULTILINE)
        if row is None:
            raise SystemExit(f"{README}: no line of gradserve's under {heading!r}")
        figures = [float(cell.replace(",", "")) for cell in row[1].split(" | ")]
        _, p50, p99, rate = figures[:4]
        mean = BENCH_CORES / rate
        kinds.append(Kind(name, mean, lognormal(mean, p50, p99)))
    return kinds


def ray_costs(text: str) -> dict[tuple[str, str], float]:
    """How many times as much of a core Ray takes, by request and how Ray runs; from README.md."""
    rows = re.findall(r"^\| (/[^|]+) \| (\w+) \| (\d) \| (.*) \|$", text, re.MULTILINE)
    return {
        (request, variant): float(cells.split(" | ")[5])
        for request, variant, replicas, cells in rows
        if int(replicas) == BENCH_CORES
    }


def most_busy(kind: Kind, limit: float) -> float:
    """The largest share of a worker's time, in whole percent, at which p99 is within ``limit`` s.

    Raises SystemExit if there is none.
    """
    low, high = 0, 100
    while high - low > 1:
        percent = (low + high) // 2
        within = simulate(percent / 100 / kind.mean, kind.draw, 1).p99 <= limit
        low, high = (percent, high) if within else (low, percent)
    if not low:
        raise SystemExit(
            f"{kind.name}: no load has a p99 of {limit * 1000:g} ms; give a larger --p99"
        )
    return low / 100


def means(nodes: int) -> str:
    """Which of the project's means runs so many nodes."""
    if nodes == 1:
        return "`gradserve serve`"
    if nodes <= 4:
        return "copies behind nginx, or Kubernetes"
    return "Kubernetes with an object store"


def tables(
    kinds: list[Kind], options: argparse.Namespace, ray: dict[tuple[str, str], float]
) -> str:
    """What one node does, by itself and under Ray Serve, and what a growing load needs."""
    limit = options.p99 / 1000
    lines = [
        f"One node of {options.cores} cores, a worker each; p99 within {options.p99:g} ms, or "
        f"within {SLOW} times the request's own time if that is more:",
        "",
        "| request | a core's time, ms | requests/s at most | with p99 kept | a day, flat | "
        f"a day, peak {options.peak:g}× the mean |",
        "|---|---|---|---|---|---|",
    ]
    shares = {}
    for kind in kinds:
        share = shares[kind.name] = most_busy(kind, max(limit, SLOW * kind.mean))
        most = options.cores / kind.mean
        kept = share * most
        lines.append(
            f"| {kind.name} | {kind.mean * 1000:.3g} | {_round(most)} | {_round(kept)} "
            f"| {_round(kept * DAY)} | {_round(kept * DAY / options.peak)} |"
        )
    if measured_under_ray := [kind for kind in kinds if (kind.name, "default") in ray]:
        lines += [
            "",
            "Up to the first figure one node is enough, and Ray is not needed. Under Ray Serve the "
            f"same node does the others (requests/s with p99 kept × {DAY:,} s / {options.peak:g} / "
            "the processor time of a request as a multiple of `gradserve serve`'s):",
            "",
            "| request | `gradserve serve`, a day | Ray Serve with HAProxy, a day | "
            "Ray Serve by default, a day |",
            "|---|---|---|---|",
        ]
        for kind in measured_under_ray:
            day = shares[kind.name] * options.cores / kind.mean * DAY / options.peak
            by_ray = [
                f"{_round(day / ray[kind.name, variant])} (÷ {ray[kind.name, variant]:.2g})"
                for variant in ("HAProxy", "default")
            ]
            lines.append(f"| {kind.name} | {_round(day)} | {' | '.join(by_ray)} |")
    kind = next((each for each in kinds if each.name == MAIN), kinds[0])
    lines += [
        "",
        f"{kind.name}, from {_round(options.today)} requests a day; a node more than needed, "
        "from two on, so that one may fail:",
        "",
        "| load | requests a day | at the peak, /s | nodes | workers busy | p50, p99 ms | run |",
        "|---|---|---|---|---|---|---|",
    ]
    for times in TIMES:
        peak = options.today * times * options.peak / DAY
        needed = math.ceil(peak * kind.mean / shares[kind.name] / options.cores)
        nodes = needed if needed == 1 else needed + 1
        found = simulate(peak / (nodes * options.cores), kind.draw, 1)
        latency = f"{found.p50 * 1000:.2g}, {found.p99 * 1000:.2g}"
        lines.append(
            f"| {times:,}× | {_round(options.today * times)} | {_round(peak)} | {nodes:,} "
            f"| {found.busy:.0%} | {latency} | {means(nodes)} |"
        )
    return "\n".join(lines)


def _round(number: float) -> str:
    """Two digits, in words that people say: 3,700, 310 million."""
    digits = -math.floor(math.log10(number)) + 1 if number else 0
    rounded = round(number, digits)
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if rounded >= size:
            return f"{rounded / size:.3g}{word}"
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def record(url: str, body: str, kind: str, requests: int) -> Seconds:
    """Seconds of each of so many POSTs, one after another on one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
    content = Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    times = []
    for _ in range(requests):
        started = time.perf_counter()
        connection.request("POST", target, content, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        times.append(time.perf_counter() - started)
        if answer.status != 200:
            raise SystemExit(
                f"{url} answered {answer.status}: {text[:300].decode(errors='replace')}"
            )
    connection.close()
    return np.array(times[requests // 10 :])  # the first ones warm up


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity", description="How many nodes a load needs."
    )
    parser.add_argument("--today", type=float, default=1e6, help="requests a day, by default 1e6")
    parser.add_argument(
        "--peak", type=float, default=3, help="the peak over the mean, 3 by default"
    )
    parser.add_argument("--cores", type=int, default=BENCH_CORES, help="of a node, 2 by default")
    parser.add_argument("--p99", type=float, default=10, help="milliseconds, 10 by default")
    parser.add_argument(
        "--times", type=Path, metavar="FILE", help="seconds, one a line, to draw from"
    )
    parser.add_argument("--write", action="store_true", help="renew the tables in docs/scaling.md")
    parser.add_argument(
        "--record", nargs=2, metavar=("URL", "FILE"), help="measure a service first"
    )
    parser.add_argument("--body", default='{"x": 3.0}', help="what is sent; @FILE for a file")
    parser.add_argument("--type", default="application/json", help="its content type")
    parser.add_argument("--requests", type=int, default=5000, help="that --record sends")
    options = parser.parse_args()
    if options.record:
        url, file = options.record
        np.savetxt(file, record(url, options.body, options.type, options.requests), "%.6e")
        return
    if options.times:
        times = np.loadtxt(options.times, ndmin=1)
        kinds = [Kind(options.times.name, float(times.mean()), measured(times))]
    else:
        kinds = published(README.read_text("utf-8"))
    text = tables(kinds, options, ray_costs(README.read_text("utf-8")))
    if options.write:
        before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
