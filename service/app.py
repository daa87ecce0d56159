"""The application: settings in, ASGI out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TypedDict

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.api import (
    classify,
    curve,
    evaluate,
    explain,
    health,
    homework,
    metrics,
    models,
    pages,
    reports,
    tesseract,
    umbridge,
    v2,
    w10,
)
from service.api.homework_models import makers
from service.lifecycle import Lifecycle
from service.runtime.queue import Queue
from service.runtime.registry import Registry
from service.runtime.resources import Resources
from service.server.cores import available_cores
from service.server.intake import Held
from service.server.memory import trim_heap
from service.server.shedding import Check, Shedder
from service.settings import Settings
from service.web import errors, logs
from service.web.access import KEY_SCHEMES, AllowedHosts, ApiKey, KeyFile
from service.web.direct import DirectRoutes, direct_posts, paths
from service.web.head import HeadAsGet
from service.web.logs import Observe, RequestLog
from service.web.metrics import ModelMetrics, RequestMetrics, flush
from service.web.openapi import complete_document, operation_id
from service.web.protocol_errors import ProtocolErrors
from service.web.refusal import Refusals
from service.web.security import SecurityHeaders
from service.web.state import KeepState, Services
from service.web.templating import STATIC, Assets
from service.web.tracing import Tracing

log = logging.getLogger("gradserve")

DESCRIPTION = """
Predictions of small models **and their derivatives**, computed from graphs that PyTorch's autograd
wrote beforehand. Every answer names the model and the version that gave it. Errors are
`application/problem+json` (RFC 9457).
"""
WRITE_SECONDS = 0.25
LOADED_SECONDS = 0.1  # between looks whether every model is there


class State(TypedDict):
    """State that the lifespan passes to every request."""

    services: Services
    shedder: Shedder
    held: Held
    refusals: Refusals


def make_registry(settings: Settings) -> Registry:
    """An empty registry that loads on every core, counts for Prometheus and gives memory back."""
    return Registry(settings, ModelMetrics(), available_cores(), trim_heap, makers())


def create_app(
    settings: Settings | None = None,
    lifecycle: Lifecycle | None = None,
    registry: Registry | None = None,
    observe: Observe | None = None,
) -> ASGIApp:
    """The service with ``settings``, or those of the environment.

    It is ready once the artifacts are loaded, and reloads them when they change. ``registry`` may
    already hold loaded models. ``observe`` is called for every answer, in addition to the service's
    own metrics.
    """
    settings = settings or Settings()
    lifecycle = lifecycle or Lifecycle()
    registry = registry or make_registry(settings)
    logs.configure(settings.log_level, settings.log_format)

    observers = [observe] if observe is not None else []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        watcher = asyncio.create_task(registry.watch(), name="watch artifacts")
        writing = asyncio.create_task(_flush_records_regularly(), name="log and count answers")
        loading = asyncio.create_task(_say_when_loaded(registry, lifecycle), name="say when loaded")
        with suppress(TimeoutError):
            await asyncio.wait_for(registry.looked.wait(), registry.start_seconds)
        tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        if tracing is not None:
            observers.append(tracing.record)
        resources = Resources(
            settings.max_memory_bytes,
            settings.max_buffered_bytes,
            settings.max_wait_seconds,
            trim_heap,
        )
        queue = Queue(settings.queue_depth, settings.batch, ModelMetrics(), resources.graphs)
        yield {
            "services": Services(settings, registry, queue, lifecycle, resources),
            "refusals": refusals,
            "shedder": Shedder(queue, refusals, checks),
            "held": Held(resources.memory, settings.max_connections),
        }
        writing.cancel()
        flush_records()
        resources.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        loading.cancel()
        watcher.cancel()
        registry.close()
        with suppress(asyncio.CancelledError):
            await watcher

    app = FastAPI(
        title="gradserve",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routers = (
        curve.router(settings),
        classify.router(settings),
        explain.router(settings),
        w10.router(),
        evaluate.router(settings),
        models.router(),
        reports.router(),
        homework.router(),
        health.router(),
        metrics.router(),
        v2.router(settings, app.version),
        umbridge.router(settings),
        tesseract.router(settings),
        pages.router(),
    )
    for router in routers:
        app.include_router(router)
    app.mount("/static", Assets(directory=STATIC), name="static")
    errors.install(app)
    complete_document(app, KEY_SCHEMES if settings.api_key_file is not None else {})
    # Checks (host, key) that a request must pass before it may be refused with 429.
    checks: list[Check] = []
    # Middleware wraps FastAPI's own stack from outside: direct routes skip that stack and its cost.
    stack: ASGIApp = DirectRoutes(HeadAsGet(app), endpoints=direct_posts(routers))
    if settings.api_key_file is not None:
        stack = key = ApiKey(stack, KeyFile(settings.api_key_file))
        checks.append(key.has_key)
    if settings.allowed_hosts:
        stack = hosts = AllowedHosts(stack, settings.allowed_hosts)
        checks.append(hosts.is_ours)
    if settings.cors_origins:  # around the checks, whose refusals a page may read as well
        stack = CORSMiddleware(
            stack,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "x-api-key", "x-request-id", "traceparent"],
            expose_headers=["x-request-id"],
        )
    known = frozenset(paths(routers))
    observers.append(RequestMetrics(known).observe)
    error_formats = {protocol.PREFIX: protocol.error for protocol in (v2, umbridge, tesseract)}
    refusals = Refusals(known, settings.cors_origins, settings.access_log, error_formats)
    stack = ProtocolErrors(SecurityHeaders(stack), error_formats)
    log = RequestLog(stack, observers, enabled=settings.access_log)
    return KeepState(log)


async def _say_when_loaded(registry: Registry, lifecycle: Lifecycle) -> None:
    """Tell the other workers once this one has its models; they say that the service is ready."""
    while not registry.was_ready:
        await asyncio.sleep(LOADED_SECONDS)
    lifecycle.board.set_loaded(lifecycle.worker)


async def _flush_records_regularly() -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        try:
            flush_records()
        except OSError as error:  # a full disk, say: the next turn may do better
            log.warning("answers could not be counted: %s", error)
        except Exception:
            log.exception("answers could not be counted")


def flush_records() -> None:
    """Log and count the answers that were noted meanwhile: together they take a third."""
    logs.flush()
    flush()


def _version() -> str:
    try:
        return version("gradserve")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
