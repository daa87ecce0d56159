"""More than it can do: the surplus is refused at once, and what is accepted is answered."""

import http.client
import re
import threading
import time
from collections import Counter
from pathlib import Path

from tests.server_process import ServerProcess
from tests.tiny_artifacts import png, publish_all

CLIENTS = 24


def test_the_surplus_is_refused_while_the_rest_and_health_are_answered(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    publish_all(root)
    image = png((9, 0, 0))
    seen: Counter[int] = Counter()
    problems: list[str] = []
    going = threading.Event()
    going.set()

    def hammer(server: ServerProcess) -> None:
        try:
            hammer_one_connection(server)
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"the connection broke: {error!r}")

    def hammer_one_connection(server: ServerProcess) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        while going.is_set():
            connection.request("POST", "/classify", image, {"Content-Type": "image/png"})
            response = connection.getresponse()
            body = response.read()
            seen[response.status] += 1
            if response.status == 429 and (
                response.getheader("Retry-After") != "1"
                or response.getheader("Content-Type") != "application/problem+json"
                or not response.getheader("X-Request-Id")
                or b'"status":429' not in body
            ):
                problems.append(f"{response.headers} {body!r}")
        # Kept while it was used, refused or not, and closed once it is idle.
        assert connection.sock is not None
        if connection.sock.recv(1):
            problems.append("an answer that nobody asked for")
        connection.close()

    with ServerProcess(root, queue_depth=2, keep_alive_seconds=1).wait_ready() as server:
        threads = [threading.Thread(target=hammer, args=(server,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
            assert server.request("GET", path)[0] == 200, path
        assert b"gradserve_queue_places" in server.request("GET", "/metrics")[1]
        assert server.post("/predict", {"x": 2})[0] == 200
        going.clear()
        for thread in threads:
            thread.join(20)
        assert set(seen) == {200, 429}
        assert problems == []
        assert seen[200] > 20
        # Nothing is left behind: the next request finds an idle server.
        assert server.classify(image)[0] == 200
        metrics = server.request("GET", "/metrics")[1].decode()
        for status, number in ((429, seen[429]), (200, seen[200] + 1)):
            labels = f'handler="/classify",method="POST",model="[a-z-]*",status="{status}"'
            counts = re.findall(rf"^http_requests_total\{{{labels}.*\}} (\S+)$", metrics, re.M)
            assert sum(map(float, counts)) == number
        assert f'gradserve_refusals_total{{reason="busy"}} {seen[429]}.0' in metrics
