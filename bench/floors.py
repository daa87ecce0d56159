"""What no server can go below: the model alone, decoding alone, JSON alone.

Each is measured on one core, the model also on all at once. It is a process of its own, so that
nothing else of the benchmark shares its interpreter: ``python -m bench.floors REQUEST.json`` prints
its measurements as JSON.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pydantic_core

from bench.peers.model import load_classifier, read_image, session
from contract.pictures import decode, open_image

BATCHES = (1, 2, 4, 8, 16, 32, 64)
POINTS = (1, 3, 10, 100, 1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Request:
    """What to measure: graphs by precision, the graph of f′, image files by name."""

    classifiers: dict[str, str]
    derivative: str
    pictures: dict[str, str]
    seconds: float


def measure(request: Request, environment: dict[str, str]) -> dict[str, Any]:
    """Run the measurements in a process of their own. Raises RuntimeError if they fail."""
    finished = subprocess.run(
        [sys.executable, "-m", "bench.floors", json.dumps(asdict(request))],
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(finished.stderr if finished.returncode == 0 else "")
    if finished.returncode != 0:
        raise RuntimeError(f"measuring the floors failed: {finished.stderr.strip()[-400:]}")
    return dict(json.loads(finished.stdout))


def json_ms(body: bytes, answer: Any) -> dict[str, float]:
    """Milliseconds to parse a request's body and to format its answer, by library."""
    libraries = {
        "json": (json.loads, lambda value: json.dumps(value).encode()),
        "pydantic-core": (pydantic_core.from_json, pydantic_core.to_json),
        "pydantic-core and orjson": (pydantic_core.from_json, orjson.dumps),
    }
    return {
        name: timed(lambda: (parse(body), dump(answer)), 0.5)  # noqa: B023 — called at once
        for name, (parse, dump) in libraries.items()
    }


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Median milliseconds of a call, over ``seconds`` and at least five calls."""
    call()
    durations = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 5:
        before = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - before)
    return statistics.median(durations) / 1e6


def _model(request: Request, images: Any) -> dict[str, Any]:
    model: dict[str, Any] = {}
    for precision, path in request.classifiers.items():
        graph = session(path)
        name = graph.get_inputs()[0].name
        model[precision] = {
            batch: timed(lambda: graph.run(None, {name: images[:batch]}), request.seconds)  # noqa: B023
            for batch in BATCHES
        }
    try:
        eager = load_classifier("eager")
    except Exception as error:  # whatever it is, the peers that need it report it, too
        print(f"eager PyTorch cannot be measured: {error}", file=sys.stderr)
    else:
        model["eager"] = {1: timed(lambda: eager(images[:1]), request.seconds)}
    return model


def _on_all_cores(path: str, cores: list[int], seconds: float) -> float:
    """Milliseconds of one image while every core runs the model, as it does in a busy service.

    Cores share caches and memory: together each is slower than alone.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    barrier = context.Barrier(len(cores))
    processes = [
        context.Process(target=_on_core, args=(path, core, seconds, barrier, results))
        for core in cores
    ]
    for process in processes:
        process.start()
    medians = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return statistics.mean(medians)


def _on_core(path: str, core: int, seconds: float, barrier: Barrier, results: Any) -> None:
    os.sched_setaffinity(0, {core})
    graph = session(path)
    inputs = {graph.get_inputs()[0].name: _images(1)}
    graph.run(None, inputs)
    barrier.wait(timeout=60)
    results.put(timed(lambda: graph.run(None, inputs), seconds))


def _images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def _derivative(request: Request) -> dict[int, float]:
    graph = session(request.derivative)
    name = graph.get_inputs()[0].name
    return {
        count: timed(lambda: graph.run(None, {name: np.linspace(0, 1, count)}), request.seconds / 2)  # noqa: B023
        for count in POINTS
    }


def _decoding(request: Request) -> dict[str, dict[str, float]]:
    decoding = {}
    for name, path in request.pictures.items():
        content = Path(path).read_bytes()
        decoding[name] = {
            "ours": timed(lambda: _read_as_we_do(content), request.seconds),  # noqa: B023
            "peers": timed(lambda: read_image(content), request.seconds),  # noqa: B023
        }
    return decoding


def _read_as_we_do(content: bytes) -> Any:
    return decode(open_image(content, max_pixels=50_000_000, max_side=65_535), 32)


def main() -> None:
    """Measure what the first argument asks for: on the last of the cores we may use, or on all."""
    request = Request(**json.loads(sys.argv[1]))
    cores = sorted(os.sched_getaffinity(0))
    together = {
        precision: _on_all_cores(path, cores, request.seconds)
        for precision, path in request.classifiers.items()
    }
    os.sched_setaffinity(0, cores[-1:])
    measured = {
        "model_ms": _model(request, _images(max(BATCHES))),
        "model_on_all_cores_ms": together,
        "derivative_ms": _derivative(request),
        "decoding_ms": _decoding(request),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
