"""The log: one record a request, readable by programs, with nothing of the input in it."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.web import logs
from service.web.logs import JsonFormat, TextFormat

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def written(client: TestClient) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the service logs as JSON, parsed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormat())
    logger = logging.getLogger("gradserve")
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_a_record_says_who_what_and_where_the_time_went(client: TestClient, written) -> None:
    headers = {"x-request-id": "mine-1", "traceparent": TRACE}
    client.post("/predict", json={"x": 12.345}, headers=headers)
    (record,) = written()
    assert record["request_id"] == "mine-1"
    assert record["traceparent"] == TRACE
    assert (record["method"], record["path"], record["status"]) == ("POST", "/predict", 200)
    assert (record["model"], record["version"]) == ("curve-mlp", 1)
    assert {"infer", "write"} <= record["stages_ms"].keys()
    assert sum(record["stages_ms"].values()) <= record["ms"]
    assert record["bytes"] > 50
    assert "12.345" not in json.dumps(record)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/predict", "/predict"),
        ("POST", "/classify", "/classify"),
        ("POST", "/v2/models/curve-mlp/infer", "/v2/models/{model}/infer"),
        ("GET", "/models/curve-mlp", "/models/{model}"),
        ("GET", "/health/ready", "/health/ready"),
        ("GET", "/nothing", None),
    ],
)
def test_a_record_has_the_route_however_the_request_got_there(
    client: TestClient, written, method: str, path: str, route: str | None
) -> None:
    client.request(method, path)
    assert written()[-1].get("route") == route


@pytest.mark.parametrize(
    "trace", ["", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE.upper(), TRACE + "\tx"]
)
def test_a_trace_that_is_not_one_is_passed_over(client: TestClient, written, trace: str) -> None:
    client.get("/health/live", headers={"traceparent": trace})
    assert "traceparent" not in written()[0]


def test_a_traceback_is_one_record_with_its_request(
    serve: Callable[..., TestClient], artifacts: Path, monkeypatch, capsys
) -> None:
    served = serve(artifacts)
    monkeypatch.setattr("service.api.curve.read_json", None)
    answer = served.post("/predict", json={"x": 1}, headers={"x-request-id": "crash-1"})
    assert answer.status_code == 500
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    fault = next(record for record in records if "traceback" in record)
    assert fault["request_id"] == "crash-1"
    assert "TypeError" in fault["traceback"]


@pytest.mark.parametrize(
    ("style", "terminal", "kind"),
    [
        ("auto", True, TextFormat),
        ("auto", False, JsonFormat),
        ("text", False, TextFormat),
        ("json", True, JsonFormat),
    ],
)
def test_json_unless_a_person_reads_it(monkeypatch, style: str, terminal: bool, kind: type) -> None:
    logger = logging.getLogger("gradserve")
    before = logger.handlers
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    try:
        logs.configure("info", style)
        assert type(logger.handlers[0].formatter) is kind
    finally:
        logger.handlers = before


def test_a_warning_of_pillow_is_one_line_with_the_request(
    serve: Callable[..., TestClient], artifacts: Path, capsys
) -> None:
    entry = b"\x01\x0f\0\x02\0\x0f\xff\xff\0\0\0\x08"  # a text that is longer than the file
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x40" + entry * 64 + bytes(4)
    stream = io.BytesIO()
    Image.new("RGB", (900, 700)).save(stream, "JPEG", exif=exif)
    served = serve(artifacts, log_format="text")
    answer = served.post(
        "/classify?model=cifar-improved",
        content=stream.getvalue(),
        headers={"content-type": "image/jpeg", "x-request-id": "odd-exif"},
    )
    assert answer.status_code == 200, answer.text
    lines = [line for line in capsys.readouterr().err.splitlines() if "Warning" in line]
    assert 1 <= len(lines) <= 3
    assert all("(request odd-exif)" in line for line in lines)
