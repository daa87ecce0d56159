"""Spans for OpenTelemetry: one for each request, with one for each of its stages.

Off unless ``GRADSERVE_OTLP_ENDPOINT`` is set; needs the extra ``otel``. Spans are made when a
request has been answered, from the same record as the log, and are sent by a thread. While the
collector is down spans are lost; requests are not affected.
"""

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.types import Scope

from service.web.request_record import STAGES, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

SECONDS_TO_SEND = 2  # one batch; then it is given up
INSTALL = (
    "GRADSERVE_OTLP_ENDPOINT needs OpenTelemetry: pip install 'gradserve[otel]', "
    "or build the image with --build-arg LOCK=s3"
)


class TracingUnavailable(Exception):
    """The packages of the extra ``otel`` are not installed."""


def check_installed() -> None:
    """Raise TracingUnavailable if the packages are missing. They are not loaded yet."""
    try:
        found = find_spec("opentelemetry.sdk") and find_spec(
            "opentelemetry.exporter.otlp.proto.http"
        )
    except ImportError:  # of a package above it
        found = None
    if found is None:
        raise TracingUnavailable(INSTALL)


class Tracing:
    """Makes and sends spans. Starts a thread, so it is made in the worker, not before the fork."""

    def __init__(self, endpoint: str, processor: "SpanProcessor | None" = None) -> None:
        """Send to ``endpoint``, such as http://localhost:4318/v1/traces, or to ``processor``.

        Raises TracingUnavailable.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise TracingUnavailable(INSTALL) from None
        logging.getLogger("opentelemetry").setLevel("CRITICAL")
        self._provider = TracerProvider(resource=Resource.create({"service.name": "gradserve"}))
        self._provider.add_span_processor(
            processor
            or BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=SECONDS_TO_SEND))
        )
        self._tracer = self._provider.get_tracer("gradserve")
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self, scope: Scope, status: int, seconds: float, request_record: RequestRecord
    ) -> None:
        """Make the spans of a request that ends now."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        end = time.time_ns()
        epoch = end - int(time.perf_counter() * 1e9)  # of ``perf_counter``
        route = getattr(scope.get("route"), "path", scope["path"])
        parent = (
            self._propagator.extract({"traceparent": request_record.trace})
            if request_record.trace
            else None
        )
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            attributes={
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
                "gradserve.request_id": request_record.request_id,
                "gradserve.model": request_record.model,
                "gradserve.version": request_record.version,
                "gradserve.rows": request_record.rows,
            },
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for stage in STAGES:
            if stage in request_record.starts:
                start = epoch + int(request_record.starts[stage] * 1e9)
                child = self._tracer.start_span(stage, context=inside, start_time=start)
                child.end(start + int(request_record.seconds[stage] * 1e9))
        span.end(end)

    def close(self) -> None:
        """Send the remaining spans, within a short time limit."""
        self._provider.shutdown()
