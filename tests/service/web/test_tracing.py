"""Spans: one a request with one for each stage, in the client's trace."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.web.request_record import RequestRecord
from service.web.tracing import Tracing, TracingUnavailable

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed here")
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

SCOPE = {"type": "http", "method": "POST", "path": "/gradient"}


def test_a_request_and_its_stages_are_spans_of_the_clients_trace() -> None:
    kept = InMemorySpanExporter()
    tracing = Tracing("http://127.0.0.1:9", SimpleSpanProcessor(kept))
    request_record = RequestRecord(
        "id-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )
    request_record.model, request_record.version = "curve-mlp", 4
    request_record.add("parse", 0.001)
    request_record.add("infer", 0.002)
    tracing.record(SCOPE, 200, 0.005, request_record)
    parse, infer, whole = kept.get_finished_spans()
    assert (parse.name, infer.name, whole.name) == ("parse", "infer", "POST /gradient")
    assert whole.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert whole.parent.span_id == 0x00F067AA0BA902B7
    assert infer.parent.span_id == whole.context.span_id
    assert whole.attributes["gradserve.model"] == "curve-mlp"
    assert whole.end_time - whole.start_time == pytest.approx(5e6, rel=0.01)
    assert infer.end_time - infer.start_time == pytest.approx(2e6, rel=0.01)


def test_a_collector_that_is_down_costs_nothing_but_spans(
    serve: Callable[..., TestClient], artifacts: Path
) -> None:
    served = serve(artifacts, otlp_endpoint="http://127.0.0.1:9/v1/traces")
    for _ in range(20):
        assert served.post("/predict", json={"x": 1}).status_code == 200


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match="gradserve\\[otel\\]"):
        Tracing("http://127.0.0.1:9")
