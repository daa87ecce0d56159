"""Prometheus metrics, added up over all workers.

Each worker writes its figures to files in PROMETHEUS_MULTIPROC_DIR, which the parent process sets
before anything else is loaded, and whichever worker is asked reads them all. Without that variable
(in tests, or under another server) they are those of this process.
"""

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from starlette.types import Scope

from service.runtime.observer import Observer

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter("gradserve_requests", "Requests answered", ["path", "status"])
DURATION = Histogram(
    "gradserve_request_seconds",
    "Time from a request's head to the end of its answer",
    ["path"],
    buckets=SECONDS,
)
WAITING = Gauge("gradserve_queue_places", "Places of the queue in use", multiprocess_mode="livesum")
VERSION = Gauge(
    "gradserve_model_version",
    "Version in service, the oldest if the workers differ; 0 if none",
    ["model"],
    multiprocess_mode="livemin",
)
READY = Gauge("gradserve_ready", "1 if every worker is ready, else 0", multiprocess_mode="livemin")

OTHER = "other"


class ModelMetrics(Observer):
    """What the runtime tells, as figures."""

    def places_taken(self, taken: int) -> None:
        """Set the places of the queue in use."""
        WAITING.set(taken)

    def version_in_service(self, model: str, version: int) -> None:
        """Set the version in service of a model; 0 is none."""
        VERSION.labels(model).set(version)

    def readiness(self, ready: bool) -> None:
        """Set whether this worker is ready."""
        READY.set(ready)


class RequestMetrics:
    """Counts answers by path and status. Paths that do not exist all count as ``other``."""

    def __init__(self, paths: frozenset[str]) -> None:
        self.paths = paths
        self._requests: dict[tuple[str, int], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Note an answer."""
        path = scope["path"]
        if path not in self.paths:
            path = getattr(scope.get("route"), "path", OTHER)
            path = path if path in self.paths else OTHER
        counter = self._requests.get((path, status))
        if counter is None:
            # Finding a child by its labels takes longer than adding to it.
            counter = self._requests[path, status] = REQUESTS.labels(path, status)
        counter.inc()
        duration = self._durations.get(path)
        if duration is None:
            duration = self._durations[path] = DURATION.labels(path)
        duration.observe(seconds)


def exposition() -> bytes:
    """All figures, in Prometheus's text format."""
    if DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def remove_gauges(pid: int) -> None:
    """Remove a dead worker's gauges; keep its counters."""
    if DIRECTORY in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
