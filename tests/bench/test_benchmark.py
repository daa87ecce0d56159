"""The benchmark's own machinery: it stops what it starts, and believes only right answers."""

import http.server
import json
import socket
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop
from PIL import Image
from python_multipart.multipart import parse_form

from bench import overload, pictures, report, targets
from bench.load import Body, Measured
from bench.measure import Beside, Serving, Step, measure
from bench.processes import Running
from bench.servers import SERVERS, Server
from bench.subjects import Question, multipart, right

# Starts a grandchild in a session of its own, whose parent then ends: the worst case to clean up.
# The grandchild prints its id once it is an orphan.
RUNAWAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        print(os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""

# Answers every POST with the JSON it was given on the command line.
PARROT = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(sys.argv[2]))
        self.end_headers()
        self.wfile.write(sys.argv[3].encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_everything_that_was_started_is_stopped(tmp_path: Path) -> None:
    with Running([sys.executable, "-c", RUNAWAY], {}, tmp_path, tmp_path / "log") as running:
        deadline = time.monotonic() + 10
        while not (orphan := running.log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sorted(running.pids()) == sorted((running.process.pid, int(orphan)))
        assert running.memory().total_pss > 1
    assert running.pids() == []


def test_a_server_stands_still_while_it_is_stopped(tmp_path: Path) -> None:
    busy = "while True: pass"
    with Running([sys.executable, "-c", busy], {}, tmp_path, tmp_path / "log") as running:
        with running.stopped():
            time.sleep(0.1)
            before = running.cpu_seconds()
            time.sleep(0.5)
            assert running.cpu_seconds() - before < 0.1
        deadline = time.monotonic() + 10
        while running.cpu_seconds() < before + 0.2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.cpu_seconds() >= before + 0.2


@pytest.fixture
def load_without_wrk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request is a load: wrk is there for benchmarks only."""

    def ask(url: str, body: Body, connections: int, _seconds: float) -> Measured:
        with urllib.request.urlopen(url, body.file.read_bytes()) as answer:
            assert answer.status == 200
        return Measured(connections, 1.0, 1.0, 1.0, 1.0, served=1, refused=0, broken=0)

    monkeypatch.setattr("bench.measure.run", ask)


@pytest.mark.usefixtures("load_without_wrk")
def test_ours_that_fails_beside_a_peer_is_not_the_peers_failure(tmp_path: Path) -> None:
    step = Step(_question(tmp_path), 1, 1)
    own = Serving(_server(("{python}", "-c", "raise SystemExit(1)")), {}, {}, tmp_path)
    peer = _parrot("200", '{"index": 3}')
    with Beside(own, [step]) as beside:
        outcome = measure(peer, [step], {}, {}, tmp_path, beside)
    assert outcome.failure is None
    assert outcome.loads["a question"][0].served
    assert outcome.beside == {"a question": []}


@pytest.mark.usefixtures("load_without_wrk")
def test_ours_is_loaded_before_and_after_a_peer(tmp_path: Path) -> None:
    step = Step(_question(tmp_path), 1, 1)
    other = Step(_question(tmp_path), 2, 1)
    (tmp_path / "own").mkdir()
    own = Serving(_parrot("200", '{"index": 3}'), {}, {}, tmp_path / "own")
    with Beside(own, [step]) as beside:
        outcome = measure(_parrot("200", '{"index": 3}'), [step, other], {}, {}, tmp_path, beside)
    assert [load.connections for load in outcome.loads["a question"]] == [1, 2]
    assert [load.connections for load in outcome.beside["a question"]] == [1, 1]
    assert all(load.served for load in outcome.beside["a question"])


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        ("200", '{"index": 4, "probability": 1.0}', "answered 4, the graph gives 3"),
        ("200", "no JSON", "unexpected answer"),
    ],
)
def test_a_wrong_answer_is_a_failure(tmp_path: Path, status: str, answer: str, reason: str) -> None:
    outcome = _measure(tmp_path, _parrot(status, answer))
    assert reason in (outcome.failure or "")
    assert not outcome.loads


def test_a_server_that_ends_is_a_failure(tmp_path: Path) -> None:
    outcome = _measure(tmp_path, _server(("{python}", "-c", "raise SystemExit('no such model')")))
    assert "ended by itself" in (outcome.failure or "")
    assert "no such model" in (outcome.failure or "")


def test_multipart_is_a_form_with_one_file() -> None:
    content = multipart(b"\x89PNG\r\n", "picture.png", "image/png")
    files: list[Any] = []
    headers = {"Content-Type": b"multipart/form-data; boundary=gradserve-bench-7d1b3c0a"}
    parse_form(headers, BytesIO(content), lambda _: None, files.append)
    (file,) = files
    assert (file.field_name, file.file_name) == (b"file", b"picture.png")
    file.file_object.seek(0)
    assert file.file_object.read() == b"\x89PNG\r\n"


def test_pictures_are_of_the_size_they_are_named_for() -> None:
    content = pictures.encode(pictures.CIFAR_SIZE, seed=0)
    assert 1_500 < len(content) < 3_500
    with Image.open(BytesIO(content)) as image:
        assert (image.size, image.format) == ((32, 32), "PNG")


def test_answers_may_differ_by_rounding_only() -> None:
    assert right([1.0, 2.0], [1.0, 2.0 + 1e-12])
    assert not right([1.0, 2.0], [1.0, 2.01])
    assert not right([1.0], [1.0, 2.0])
    assert not right(3, 4)


def test_report_replaces_only_what_is_between_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.insert(readme, "new")
    report.insert(readme, "newer")
    assert readme.read_text() == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"


class Three(http.server.BaseHTTPRequestHandler):
    """Always answers 3, on connections that are kept."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Three.asked.append(self.path)
        content = b'{"index": 3}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_open_loop_counts_right_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"

    def generated(limit: float, expected: int) -> overload.Generator:
        monkeypatch.setattr(overload, "IN_TIME", limit)
        generator = overload.Generator(
            server.server_address[1], request, lambda body: json.loads(body)["index"] == expected
        )
        uvloop.run(generator.run(rate=20, seconds=1, lead=0.5))
        return generator

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Three) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        patient = generated(30.0, 3)
        assert len(Three.asked) == 30
        wrong, hasty = generated(30.0, 4), generated(-1.0, 3)
        server.shutdown()
        thread.join()
    # Those of the lead are not counted.
    assert (patient.sent, patient.in_time, patient.refused) == (20, 20, 0)
    assert (wrong.sent, wrong.in_time) == (20, 0)
    assert (hasty.sent, hasty.in_time) == (20, 0)


def test_a_refusal_and_a_broken_connection_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "IN_TIME", 30.0)
    refusal = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def answer() -> None:
            for content in (refusal, b"", b"HTTP/1.1 2"):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        generator = overload.Generator(listener.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n", bool)
        uvloop.run(generator.run(rate=3, seconds=1))
        thread.join()
    assert (generator.sent, generator.in_time, generator.refused) == (3, 0, 1)


def test_targets_compare_with_the_best_peer_and_report_failures() -> None:
    measured = _measured()
    rows = {target.what: target for target in targets.evaluate(measured)}
    small = pictures.CIFAR_SIZE.name
    servers = rows[f"/classify, {small}: requests/s against best model server, same graph"]
    assert servers.met is True
    assert servers.found == "3.00× BentoML (same graph)"
    assert rows[f"/classify, {small}: requests/s against best peer as its docs show it"].met is None
    # 2 cores ÷ (0.4 ms model + 0.1 ms decoding + 2 cores ÷ 4,000/s): 2,000/s at best.
    assert rows[f"/classify, {small}: share of its own limit"].found == "75% of 2,000/s"


def test_ours_is_held_against_its_limit_by_what_was_measured_beside_the_floor() -> None:
    """And a limit that is exceeded is none."""
    small = pictures.CIFAR_SIZE.name
    for rate, found, met in ((1_900, "95% of 2,000/s", True), (2_400, "120% of 2,000/s", False)):
        measured = _measured()
        beside = {"requests_per_s": rate, "p50_ms": 8.0, "p99_ms": 12.0}
        measured["outcomes"][0]["beside"] = {small: [beside, beside]}
        rows = {target.what: target for target in targets.evaluate(measured)}
        row = rows[f"/classify, {small}: share of its own limit"]
        assert (row.found, row.met) == (found, met)


def test_report_has_every_number_under_its_heading() -> None:
    text = report.markdown(_measured())
    assert "it broke" in text
    for table in (part for part in text.split("\n\n") if part.startswith("| ")):
        columns = {line.count(" | ") for line in table.splitlines()}
        assert len(columns) == 1, table
    header, _, *rows = next(p for p in text.split("\n\n") if "after all loads" in p).splitlines()
    assert header.split(" | ")[-4:] == ["when started", "after all loads", "RSS", "all processes |"]
    assert rows[0].split(" | ")[-5:] == ["3", "80", "90", "120", "200 |"]


def test_every_server_has_its_file() -> None:
    for server in SERVERS:
        modules = [part for part in server.command if part.startswith("bench.peers.")]
        for module in modules:
            file = Path(*module.partition(":")[0].split(".")).with_suffix(".py")
            assert (Path(__file__).parents[2] / file).is_file()


def _measure(folder: Path, server: Server) -> Any:
    return measure(server, [Step(_question(folder), 1, 1)], {}, {}, folder)


def _question(folder: Path) -> Question:
    (folder / "body").write_bytes(b"{}")
    body = Body(folder / "body", "application/json")
    return Question("a question", body, folder / "body", 3)


def _parrot(status: str, answer: str) -> Server:
    program, answer = (text.replace("{", "{{").replace("}", "}}") for text in (PARROT, answer))
    return _server(("{python}", "-c", program, "{port}", status, answer))


def _server(command: tuple[str, ...]) -> Server:
    return Server("parrot", "classify", "sketch", command, lambda found: found["index"])


def test_a_peer_is_compared_with_what_ours_gave_beside_it() -> None:
    measured = _measured()
    small = pictures.CIFAR_SIZE.name
    mine, litserve = measured["outcomes"][1], measured["outcomes"][2]
    before_and_after = (700.0, 900.0)
    litserve["beside"] = {
        small: [mine["loads"][small][0] | {"requests_per_s": rate} for rate in before_and_after]
    }
    measured["outcomes"][3]["loads"][small][0]["p99_ms"] = 10.0
    rate, p99, *_ = targets.evaluate(measured)
    assert rate.found == "2.00× LitServe (same graph)"
    assert not rate.met
    assert p99.found == "1.20× BentoML (same graph)"
    assert not p99.met
    table = next(line for line in report.markdown(measured).splitlines() if "| LitServe" in line)
    assert table.endswith("| 2.00 |")


def test_our_faster_network_is_held_against_peers_with_the_other() -> None:
    measured = _measured()
    small = pictures.CIFAR_SIZE.name
    measured["faster"] = {"model": "f", "version": 2, "precision": "int8", "multiply_adds": 500}
    what = f"/classify, {small}, by f: requests/s against best model server with m's graph"

    def found() -> targets.Target:
        return next(row for row in targets.evaluate(measured) if row.what == what)

    assert found().met is None  # none of it was measured
    _, mine, _, bentoml, _ = measured["outcomes"]
    load = mine["loads"][small][0] | {"requests_per_s": 1_800.0}
    mine["loads"][f"{small}, by f"] = [load]
    assert (found().found, found().met) == ("3.60× BentoML (same graph)", False)
    bentoml["beside"] = {f"{small}, by f": [load | {"requests_per_s": 2_500.0}]}
    assert (found().found, found().met) == ("4.50× LitServe (same graph)", True)
    text = report.markdown(measured)
    assert "beside it f version 2" in text
    assert "| gradserve, f | ours | 1,800 |" in text


@pytest.mark.usefixtures("load_without_wrk")
def test_two_of_our_questions_are_held_against_one_of_a_peer(tmp_path: Path) -> None:
    question = _question(tmp_path)
    fast = replace(question, name="by a faster network", path="/fast", against=question.name)
    (tmp_path / "own").mkdir()
    own = Serving(_parrot("200", '{"index": 3}'), {}, {}, tmp_path / "own")
    with Beside(own, [Step(question, 1, 1), Step(fast, 1, 1)]) as beside:
        peer = _parrot("200", '{"index": 3}')
        outcome = measure(peer, [Step(question, 1, 1)], {}, {}, tmp_path, beside)
    assert {name: len(loads) for name, loads in outcome.beside.items()} == {
        "a question": 2,
        "by a faster network": 2,
    }
    assert set(outcome.loads) == {"a question"}


def _slice(multiple: int, in_time: int) -> overload.Slice:
    return overload.Slice(
        multiple, knee=500, sent=1000 * multiple, in_time=in_time, refused=0, seconds=2, late_by=0.1
    )


def test_the_overload_curve_is_in_the_report() -> None:
    text = report.markdown(_measured())
    line = next(line for line in text.splitlines() if "| 1.00 (100%)" in line)
    assert line == "| gradserve | ours | 500 | 1.00 (100%) | – | – | 0.90 (9%) | 0.10 s |  |"
    assert "| Ray Serve | same graph | – | – | – | – | – | 0.00 s | it ended |" in text


def _measured() -> dict[str, Any]:
    small = pictures.CIFAR_SIZE.name
    memory = {"processes": 3, "total_pss": 200.0, "largest_pss": 90.0, "largest_rss": 120.0}

    def outcome(name: str, role: str, rate: float, failure: str | None = None) -> dict[str, Any]:
        load = {
            "connections": 16,
            "requests_per_s": rate,
            "p50_ms": 8.0,
            "p99_ms": 12.0,
            "served": 1000,
            "refused": 0,
            "broken": 0,
        }
        return {
            "name": name,
            "role": role,
            "endpoint": "classify",
            "failure": failure,
            "start_seconds": None if failure else 1.0,
            "loads": {} if failure else {small: [load]},
            "memory": None if failure else memory,
            "memory_at_start": None if failure else memory | {"largest_pss": 80.0},
        }

    measured = {
        "date": "2026-01-01T00:00+00:00",
        "quick": True,
        "seconds": 60.0,
        "machine": {
            "cpu": "a CPU",
            "cores_used": 2,
            "cores": 2,
            "memory_gib": 8.0,
            "system": "Linux",
            "python": "3.11",
            "load_average": 0.1,
            "versions": {"fastapi": "1"},
            "commit": "abc",
        },
        "classifier": {"model": "m", "version": 1, "precision": "int8", "multiply_adds": 1000},
        "derivative": {"model": "curve-mlp", "version": 1},
        "floors": {
            "model_ms": {"int8": {"1": 0.3}},
            "model_on_all_cores_ms": {"int8": 0.4},
            "derivative_ms": {"1": 0.1},
            "decoding_ms": {small: {"ours": 0.1, "peers": 0.2}},
        },
        "outcomes": [
            outcome("floor", "sketch", 4_000),
            outcome("gradserve", "ours", 1_500),
            outcome("LitServe", "same graph", 400),
            outcome("BentoML", "same graph", 500),
            outcome("LitServe", "as documented", 0, failure="it broke"),
        ],
        "overload": [
            asdict(overload.Curve("gradserve", "ours", [_slice(1, 1000), _slice(10, 900)])),
            asdict(overload.Curve("Ray Serve", "same graph", [], "it ended")),
        ],
    }
    return dict(json.loads(json.dumps(measured)))
