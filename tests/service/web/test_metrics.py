"""/metrics in one process; tests/end_to_end/test_metrics_workers.py adds up several."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram
from starlette.testclient import TestClient

from service import app
from service.web import metrics
from tests.tiny_artifacts import png


def value(text: str, name: str, labels: str = "") -> float:
    found = re.search(rf"^{re.escape(name + labels)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def test_counts_answers_by_path_and_status(client: TestClient) -> None:
    before = client.get("/metrics").text
    for x in (1, 2, "bad"):
        client.post("/predict", json={"x": x})
    client.get("/models/curve-mlp")
    client.get("/models/" + "unknown")
    client.get("/an/address/that/does/not/exist")
    after = client.get("/metrics").text

    def grown(name: str, labels: str) -> float:
        return value(after, name, labels) - value(before, name, labels)

    assert (
        grown(
            "http_requests_total",
            '{handler="/predict",method="POST",model="curve-mlp",status="200",version="1"}',
        )
        == 2
    )
    assert (
        grown(
            "http_requests_total",
            '{handler="/predict",method="POST",model="",status="422",version=""}',
        )
        == 1
    )
    assert (
        grown(
            "http_requests_total",
            '{handler="/models/{model}",method="GET",model="",status="200",version=""}',
        )
        == 1
    )
    assert (
        grown(
            "http_requests_total",
            '{handler="/models/{model}",method="GET",model="",status="404",version=""}',
        )
        == 1
    )
    assert (
        grown(
            "http_requests_total", '{handler="other",method="GET",model="",status="404",version=""}'
        )
        == 1
    )
    assert grown("http_request_duration_seconds_count", '{handler="/predict",method="POST"}') == 3
    assert "exist" not in after


def test_says_what_serves(artifacts: Path, serve: Callable[..., TestClient]) -> None:
    # In a service of its own: gauges are those of the last one in this process.
    text = serve(artifacts).get("/metrics").text
    assert value(text, "gradserve_ready") == 1
    assert value(text, "gradserve_model_version", '{model="curve-mlp"}') == 1
    assert value(text, "gradserve_queue_places") == 0


def test_says_where_a_models_time_goes(client: TestClient) -> None:
    before = client.get("/metrics").text
    client.post("/gradient", json={"x": [1, 2, 3]})
    client.post("/classify", content=png((9, 9, 9)), headers={"content-type": "image/png"})
    client.post("/classify", content=b"no picture", headers={"content-type": "image/gif"})
    after = client.get("/metrics").text

    def grown(name: str, labels: str) -> float:
        return value(after, name, labels) - value(before, name, labels)

    curve = '{model="curve-mlp",version="1"}'
    assert grown("nv_inference_request_success_total", curve) == 1
    assert grown("nv_inference_count_total", curve) == 3
    assert grown("nv_inference_exec_count_total", curve) == 2  # this one's gradient gives no y
    infer = grown("nv_inference_compute_infer_duration_us_total", curve)
    assert 0 < infer < grown("nv_inference_request_duration_us_total", curve)
    assert grown("gradserve_images_total", '{format="PNG"}') == 1
    assert grown("gradserve_refusals_total", '{reason="wrong type"}') == 1
    for stage in ("read", "parse", "infer", "write", "decode"):
        assert grown("gradserve_stage_seconds_count", f'{{stage="{stage}"}}') >= 1, stage
    assert "process_resident_memory_bytes" in after


class Opaque:
    """A histogram of another version of prometheus_client: only its public method is there."""

    def __init__(self, histogram: Histogram) -> None:
        self.observe = histogram.observe


def test_a_histogram_counts_the_same_with_and_without_its_private_names() -> None:
    values = [0.0, 0.1, 0.1000001, 0.5, 2.0, 7.0]
    samples = []
    for wrap in (lambda histogram: histogram, Opaque):
        histogram = Histogram("h", "h", buckets=(0.1, 0.5, 1), registry=CollectorRegistry())
        metrics._observe(wrap(histogram), values)
        samples.append(
            [
                (s.name, s.labels, s.value)
                for s in histogram.collect()[0].samples
                if s.name != "h_created"
            ]
        )
    assert samples[0] == samples[1]
    assert ("h_count", {}, 6.0) in samples[0]


def test_one_failure_to_count_does_not_end_counting(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    flush_records = app.flush_records

    def fails_once() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        flush_records()

    monkeypatch.setattr(app, "flush_records", fails_once)
    deadline = time.monotonic() + 30
    while len(calls) < 2:
        assert time.monotonic() < deadline, "it never tried again"
        client.get("/health/live")
        time.sleep(0.05)
