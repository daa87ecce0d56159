"""/metrics adds up over workers, and forgets no count when one dies."""

import os
import re
import signal
from pathlib import Path

from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_all


def total(server: ServerProcess, pattern: str) -> float:
    text = server.request("GET", "/metrics")[1].decode()
    return sum(float(v) for v in re.findall(rf"^{pattern} (\S+)$", text, re.M))


def test_counts_are_those_of_all_workers(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    publish_all(root)
    predictions = (
        r'http_requests_total\{handler="/predict",method="POST",model="curve-mlp",status="200",.*\}'
    )
    with ServerProcess(root, workers=2).wait_ready() as server:
        for count in (20, 40):
            for _ in range(20):
                assert server.post("/predict", {"x": 1})[0] == 200
            # The worker that wasn't asked for its figures writes them four times a second.
            server.wait_until(lambda n=count: total(server, predictions) == n, "all count", 5)
            assert total(server, "gradserve_ready") == 1
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            server.wait_until(
                lambda gone=victim: gone not in server.workers() and len(server.workers()) == 2,
                "another is there",
                10,
            )
            server.wait_ready()
            assert total(server, predictions) == count
