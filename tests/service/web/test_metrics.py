"""/metrics in one process; tests/end_to_end/test_metrics_workers.py adds up several."""

import re

from starlette.testclient import TestClient


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

    assert grown("gradserve_requests_total", '{path="/predict",status="200"}') == 2
    assert grown("gradserve_requests_total", '{path="/predict",status="422"}') == 1
    assert grown("gradserve_requests_total", '{path="/models/{model}",status="200"}') == 1
    assert grown("gradserve_requests_total", '{path="/models/{model}",status="404"}') == 1
    assert grown("gradserve_requests_total", '{path="other",status="404"}') == 1
    assert grown("gradserve_request_seconds_count", '{path="/predict"}') == 3
    assert "exist" not in after


def test_says_what_serves(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert value(text, "gradserve_ready") == 1
    assert value(text, "gradserve_model_version", '{model="curve-mlp"}') == 1
    assert value(text, "gradserve_queue_places") == 0
