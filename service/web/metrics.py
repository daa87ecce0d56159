"""Prometheus metrics, added up over all workers.

Each worker writes its figures to files in PROMETHEUS_MULTIPROC_DIR, which the parent process sets
before anything else is loaded, and whichever worker is asked reads them all. Without that variable
(in tests, or under another server) they are those of this process.

Names are those of prometheus-fastapi-instrumentator (``http_…``) and of Triton (``nv_inference_…``)
where these count the same thing, so that dashboards made for them work.
"""

import logging
import os
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from service.runtime.observer import Observer
from service.web.errors import NotReady
from service.web.request_record import STAGES, RequestRecord, current

log = logging.getLogger("gradserve")

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
# Process id whose files this process writes: the parent's after a fork, until it has its own.
_counts_as = os.getpid()
if DIRECTORY in os.environ:
    values.ValueClass = values.MultiProcessValue(lambda: _counts_as)  # type: ignore[no-untyped-call]
_why_off = ""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384)
MODEL = ["model", "version"]

REQUESTS = Counter("http_requests", "Requests answered", ["handler", "method", "status", *MODEL])
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from a request's head to the end of its answer",
    ["handler", "method"],
    buckets=SECONDS,
)
REFUSALS = Counter("gradserve_refusals", "Requests refused, by reason", ["reason"])
STAGE = Histogram(
    "gradserve_stage_seconds",
    "Where a request's time goes: " + ", ".join(STAGES),
    ["stage"],
    buckets=SECONDS,
)
DROPPED = Counter(
    "gradserve_log_records_dropped", "Log records that standard error's reader did not take"
)
IMAGES = Counter("gradserve_images", "Images decoded, by format", ["format"])
BATCH = Histogram(
    "gradserve_batch_rows", "Rows that one request gives a graph", ["model"], buckets=ROWS
)

SUCCESS = Counter("nv_inference_request_success", "Inference requests answered", MODEL)
FAILURE = Counter("nv_inference_request_failure", "Inference requests that failed", MODEL)
INFERENCES = Counter("nv_inference_count", "Rows inferred", MODEL)
RUNS = Counter("nv_inference_exec_count", "Graphs run", MODEL)
TOTAL_US = Counter("nv_inference_request_duration_us", "Time of inference requests, µs", MODEL)
QUEUE_US = Counter("nv_inference_queue_duration_us", "Of it, waiting for their turn, µs", MODEL)
INPUT_US = Counter(
    "nv_inference_compute_input_duration_us", "Of it, reading JSON and pictures, µs", MODEL
)
INFER_US = Counter("nv_inference_compute_infer_duration_us", "Of it, in the graph, µs", MODEL)
OUTPUT_US = Counter(
    "nv_inference_compute_output_duration_us", "Of it, writing the answer, µs", MODEL
)
# Triton's parts of an inference, and the stages that they are here.
MODEL_STAGES = (
    (QUEUE_US, ("queue",)),
    (INPUT_US, ("parse", "decode")),
    (INFER_US, ("infer",)),
    (OUTPUT_US, ("write",)),
)
# Triton's statistics have it, its metrics don't.
FAILED_US = Counter("gradserve_inference_failure_us", "Time of those that failed, µs", MODEL)

WAITING = Gauge("gradserve_queue_places", "Places of the queue in use", multiprocess_mode="livesum")
VERSION = Gauge(
    "gradserve_model_version",
    "Version in service, the oldest if the workers differ; 0 if none",
    ["model"],
    multiprocess_mode="livemin",
)
SERVING = Gauge(
    "gradserve_models_in_service",
    "Models that answer, the fewest if the workers differ",
    multiprocess_mode="livemin",
)
REFUSED_VERSIONS = Gauge(
    "gradserve_refused_versions",
    "Versions in the artifacts folder that were refused",
    ["model"],
    multiprocess_mode="livemax",
)
READY = Gauge("gradserve_ready", "1 if every worker is ready, else 0", multiprocess_mode="livemin")
FOLDER = Gauge(
    "gradserve_artifacts_readable",
    "1 if every worker can read the artifacts folder; what is loaded serves without it too",
    multiprocess_mode="livemin",
)
STORE = Gauge(
    "gradserve_store_reached",
    "1 if the last look at the object store succeeded; what is loaded serves without it too",
    multiprocess_mode="livemin",
)
STORE_TIME = Gauge(
    "gradserve_store_last_success_seconds",
    "When a look at the object store last succeeded, s since the epoch; 0 if none has",
    multiprocess_mode="livemin",
)
STORE_REFUSED = Gauge(
    "gradserve_store_refused_versions",
    "Versions in the object store that are damaged and were not copied",
    multiprocess_mode="livemax",
)
STARTED = Gauge(
    "gradserve_start_time_seconds",
    "When the oldest worker started, s since the epoch",
    multiprocess_mode="livemin",
)

OTHER = "other"
# Why a request was refused, by the status that says so.
REASONS = {
    400: "malformed",
    401: "no key",
    408: "too slow",
    413: "too large",
    415: "wrong type",
    422: "invalid",
    429: "busy",
    431: "head too large",
    503: "not ready",
}


def count_image(form: str) -> None:
    """Add an image that was decoded."""
    IMAGES.labels(form).inc()


class ModelMetrics(Observer):
    """Turns the runtime's events into metrics, and into the record of the current request."""

    def places_taken(self, taken: int) -> None:
        """Set the places of the queue in use."""
        WAITING.set(taken)

    def version_in_service(self, model: str, version: int) -> None:
        """Set the version in service of a model; 0 is none."""
        VERSION.labels(model).set(version)

    def readiness(self, ready: bool) -> None:
        """Set whether this worker is ready."""
        READY.set(ready)

    def models(self, serving: int, refused: dict[str, int]) -> None:
        """Set how many models serve, and how many versions of each were refused."""
        SERVING.set(serving)
        for model, versions in refused.items():
            REFUSED_VERSIONS.labels(model).set(versions)

    def ran(self, model: str, version: int, rows: int, graphs: int, seconds: float) -> None:
        """Add what a model computed."""
        request_record = current.get()
        if request_record is not None:
            request_record.model, request_record.version = model, version
            request_record.rows += rows
            request_record.runs += graphs
            request_record.add("infer", seconds)

    def waited(self, seconds: float, *, for_graph: bool) -> None:
        """Add the time for which a request waited for its turn."""
        request_record = current.get()
        if request_record is not None:
            request_record.add("queue", seconds)
            request_record.add(
                "infer" if for_graph else "decode", -seconds
            )  # which counts it as well

    def folder_readable(self, readable: bool) -> None:
        """Set whether this worker can read the artifacts folder."""
        FOLDER.set(readable)

    def store_seen(self, reached: bool, succeeded: float, refused: int) -> None:
        """Set what the last look at the object store gave."""
        STORE.set(reached)
        STORE_TIME.set(succeeded)
        STORE_REFUSED.set(refused)


class RequestMetrics:
    """Notes answers, which ``flush`` counts. Paths that do not exist all count as ``other``."""

    def __init__(self, paths: frozenset[str]) -> None:
        self.paths = paths
        STARTED.set(time.time())
        # At 0 from the start: rates are right from the first on, and the files that the workers
        # share are open before connections can take every descriptor.
        for reason in REASONS.values():
            REFUSALS.labels(reason)
        for stage in STAGES:
            STAGE.labels(stage)

    def handler(self, scope: Scope) -> str:
        """The path of the endpoint that answered, with its placeholders."""
        path: str = scope["path"]
        if path in self.paths:
            return path
        path = getattr(scope.get("route"), "path", OTHER)
        return path if path in self.paths else OTHER

    def observe(
        self, scope: Scope, status: int, seconds: float, request_record: RequestRecord
    ) -> None:
        """Note an answer."""
        _noted.append((self.handler(scope), scope["method"], status, seconds, request_record))
        if len(_noted) >= MOST_NOTED:
            flush()


# Answers that are not counted yet. Counting them one by one takes three times as long.
_noted: deque[tuple[str, str, int, float, RequestRecord]] = deque()
MOST_NOTED = 1000
_flushing = Lock()


def flush() -> None:
    """Count the answers that were noted until now. May be called from any thread."""
    with _flushing:
        requests: Tally[tuple[str, str, int, str, str]] = Tally()
        refusals: Tally[str] = Tally()
        durations, stages, models = defaultdict(list), defaultdict(list), defaultdict(list)
        for _ in range(len(_noted)):
            handler, method, status, seconds, request_record = _noted.popleft()
            version = str(request_record.version or "")
            requests[handler, method, status, request_record.model, version] += 1
            durations[handler, method].append(seconds)
            # A copy: a thread may still work on a request whose client has gone.
            for stage, spent in tuple(request_record.seconds.items()):
                stages[stage].append(spent)
            if status in REASONS and handler != OTHER:
                refusals[REASONS[status]] += 1
            if request_record.model:
                models[request_record.model, version].append((status, seconds, request_record))
        for request, times in requests.items():
            REQUESTS.labels(*request).inc(times)
        for reason, times in refusals.items():
            REFUSALS.labels(reason).inc(times)
        for endpoint, values in durations.items():
            _observe(DURATION.labels(*endpoint), values)
        for stage, values in stages.items():
            _observe(STAGE.labels(stage), values)
        for (model, version), answers in models.items():
            _count_for_model(model, version, answers)


def _count_for_model(
    model: str, version: str, answers: Sequence[tuple[int, float, RequestRecord]]
) -> None:
    right = [
        (seconds, request_record) for status, seconds, request_record in answers if status < 400
    ]
    spent = [request_record.seconds for _, request_record in right]
    SUCCESS.labels(model, version).inc(len(right))
    failed = [seconds for status, seconds, _ in answers if status >= 400]
    FAILURE.labels(model, version).inc(len(failed))
    FAILED_US.labels(model, version).inc(sum(failed) * 1e6)
    INFERENCES.labels(model, version).inc(sum(request_record.rows for _, request_record in right))
    RUNS.labels(model, version).inc(sum(request_record.runs for _, request_record in right))
    TOTAL_US.labels(model, version).inc(sum(seconds for seconds, _ in right) * 1e6)
    for counter, stages in MODEL_STAGES:
        seconds = sum(times.get(stage, 0.0) for times in spent for stage in stages)
        counter.labels(model, version).inc(seconds * 1e6)
    _observe(
        BATCH.labels(model),
        [request_record.rows / max(1, request_record.runs) for _, request_record in right],
    )


def _observe(histogram: Histogram, values: Sequence[float]) -> None:
    """``histogram.observe`` for each of ``values``, with one write a bucket."""
    try:
        bounds, buckets, total = histogram._upper_bounds, histogram._buckets, histogram._sum
    except AttributeError:  # private names, which another version may not have
        for value in values:
            histogram.observe(value)
        return
    counts = Tally(bisect_left(bounds, value) for value in values)
    for bucket, times in counts.items():
        buckets[bucket].inc(times)
    total.inc(sum(values))


class _Workers(Collector):
    """The system's figures of each worker: ``process_…``, labelled with the worker's process id."""

    def collect(self) -> Iterator[Metric]:
        """The figures of every worker that runs."""
        families: dict[str, Metric] = {}
        for pid in _live_workers():
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                kept = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(pid)}
                    kept.add_sample(sample.name, labels, sample.value)
        yield from families.values()


def _live_workers() -> list[int]:
    """Process ids of the workers: the gauges of a dead one are removed with it."""
    if DIRECTORY not in os.environ:
        return [os.getpid()]
    files = Path(os.environ[DIRECTORY]).glob("gauge_livemin_*.db")
    return sorted(int(file.stem.rpartition("_")[2]) for file in files)


def count_as(pid: int) -> None:
    """Write to the files of ``pid``, this process; they must have been reserved."""
    global _counts_as  # noqa: PLW0603
    _counts_as = pid


def switch_off(reason: str) -> None:
    """Serve no metrics from now on: those of one worker alone would mislead."""
    global _why_off  # noqa: PLW0603
    _why_off = reason
    log.warning("serving without metrics: %s", reason)


def exposition() -> bytes:
    """All figures, in Prometheus's text format. Raises NotReady if there are none.

    Those of other workers are as of their last ``flush``.
    """
    return generate_latest(_figures())


def model_figures() -> dict[tuple[str, str], dict[str, float]]:
    """Triton's counters of each model and version, by name, over all workers."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for family in _figures().collect():
        if family.name.startswith(("nv_inference_", "gradserve_inference_")):
            for sample in family.samples:
                key = sample.labels["model"], sample.labels["version"]
                found.setdefault(key, {})[sample.name] = sample.value
    return found


def _figures() -> CollectorRegistry:
    if _why_off:
        raise NotReady(f"There are no metrics: {_why_off}")
    flush()
    if DIRECTORY not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Workers())
    return registry


def remove_gauges(pid: int) -> None:
    """Remove a dead worker's gauges; keep its counters."""
    if DIRECTORY in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
