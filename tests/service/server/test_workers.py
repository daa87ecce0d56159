"""Which workers are replaced, how the service ends, what it leaves, and where it can't fork."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from service.lifecycle import Board, Lifecycle
from service.server.metrics_folder import MetricsFolder, sweep
from service.server.workers import Supervisor
from service.settings import Settings
from tests.server_process import ROOT, ServerProcess
from tests.without_parts import WITHOUT_PARTS

SPIN = "while True: pass"
SLEEP = "import time; time.sleep(60)"


class Patched(ServerProcess):
    """The service after some Python of the test's own."""

    def __init__(self, artifacts: Path, code: str, workers: int = 1, **settings: object) -> None:
        self.program = (
            "-c",
            f"{code}\nfrom service.__main__ import main\nraise SystemExit(main())",
        )
        super().__init__(artifacts, workers, **settings)


class Apart(Patched):
    """The service with shared memory of its own: other services on the machine leave traces too."""

    def __init__(self, folder: Path, code: str = "", **settings: Any) -> None:
        self.memory = folder / "memory"
        self.memory.mkdir()
        apart = (
            "import tempfile\nfrom pathlib import Path\n"
            "from service.server import metrics_folder\n"
            f"tempfile.tempdir = {str(self.memory)!r}\n"
            f"metrics_folder.SHARED_MEMORY = Path({str(self.memory)!r})\n"
        )
        super().__init__(folder / "artifacts", apart + code, **settings)

    def folders(self) -> list[Path]:
        """What lies in its shared memory."""
        return list(self.memory.iterdir())


@pytest.mark.parametrize(
    ("code", "busy_seconds", "killed"),
    [(SPIN, 30.0, False), (SPIN, 1.0, True), (SLEEP, 30.0, True)],
    ids=["busy", "busy for too long", "dead"],
)
def test_a_silent_worker_is_killed_unless_it_works(
    code: str, busy_seconds: float, killed: bool
) -> None:
    settings = Settings(worker_timeout_seconds=0.6, worker_busy_seconds=busy_seconds)
    with socket.socket() as listener, subprocess.Popen([sys.executable, "-c", code]) as process:
        supervisor = Supervisor(listener, Lifecycle(Board(1)), settings, lambda: None)
        supervisor.workers[0].pid = process.pid
        supervisor.board.write(0, 0)
        end = time.monotonic() + 3.5
        while time.monotonic() < end and process.poll() is None:
            supervisor._kill_hung()
            time.sleep(0.05)
        assert (process.poll() == -signal.SIGKILL) is killed
        process.kill()


def test_it_goes_on_after_it_was_stopped(artifacts: Path, tmp_path: Path) -> None:
    """Ctrl-Z and fg: neither does it end, nor are workers killed that stood still with it."""
    (tmp_path / "artifacts").symlink_to(artifacts)
    with Apart(tmp_path, workers=2, worker_timeout_seconds=3, worker_busy_seconds=3) as server:
        server.wait_ready()
        for stopped in ([], server.workers()):  # the parent alone, and with its workers
            for pid in (server.process.pid, *stopped):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(5)
            server.process.send_signal(signal.SIGCONT)
            time.sleep(1)  # it looks at them before they go on
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            assert server.get("/health/live")[0] == 200
            assert server.process.poll() is None
        server.process.terminate()
        assert server.process.wait(15) == 0
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "killed" not in log


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM]
)
def test_every_ending_signal_drains_and_leaves_nothing(
    artifacts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "artifacts").symlink_to(artifacts)
    with Apart(tmp_path, workers=2, drain_delay_seconds=0.3) as server:
        server.wait_ready()
        assert len(server.folders()) == 1
        if number in {signal.SIGHUP, signal.SIGQUIT}:  # a terminal sends them to all of a group
            for worker in server.workers():
                os.kill(worker, number)
        server.process.send_signal(number)
        assert server.process.wait(15) == 0
    assert server.folders() == []
    assert "Traceback" not in server.log.read_text()


def test_a_signal_while_it_starts_leaves_nothing(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts").symlink_to(artifacts)
    with Apart(tmp_path) as server:
        server.wait_until(server.folders, "its folder")
        server.wait_until(server.workers, "a process that verifies")  # started first of all
        children = server.workers()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
    assert server.folders() == []
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_signal_waits_until_the_modules_are_imported(tmp_path: Path) -> None:
    """Whatever is being imported might print or swallow the exception that ends the process."""
    program = """
import os, runpy, signal, sys

class AtImport:
    def find_spec(self, name, path, target=None):
        if name == "service.command":
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                os.getpid()
            except BaseException:
                print("interrupted", file=sys.stderr)
                raise

sys.meta_path.insert(0, AtImport())
sys.argv = ["service", "--port", "0", "--artifacts", sys.argv[1]]
runpy.run_module("service", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_killed_is_swept_by_the_next_start(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from service.server.metrics_folder import MetricsFolder\n"
        "MetricsFolder((Path(sys.argv[1]),))\nprint('made', flush=True)\ntime.sleep(60)"
    )
    other = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(other, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sweep(tmp_path)  # in use
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
    folder = MetricsFolder((tmp_path,))
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_room_it_serves_without_metrics(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts").symlink_to(artifacts)
    # A limit on the size of files stands for a full file system: reserving fails in the same way.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    with Apart(tmp_path, limit, workers=2) as server:
        server.wait_ready()
        assert server.post("/predict", {"x": 2})[0] == 200
        status, answer = server.get("/metrics")
        assert status == 503
        assert "no room" in answer["detail"]
        assert server.folders() == []
    assert "without metrics" in server.log.read_text()


def dropped_records(port: int) -> float:
    """How many log records a server has dropped, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.search(rb"\ngradserve_log_records_dropped_total (\S+)\n", answer.read())
    return float(found[1]) if found else 0.0


def test_who_never_reads_its_log_does_not_stop_it(artifacts: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADSERVE_ARTIFACTS": str(artifacts)}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "--port", str(port), "--workers", "1"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    ask = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except OSError:
                time.sleep(0.1)
        with client:
            for _ in range(600):  # a pipe holds 300 such records
                client.sendall(ask)
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            os.set_blocking(process.stderr.fileno(), False)
            log = b""
            while piece := process.stderr.read(65536):
                log += piece
            while not dropped_records(port):
                assert time.monotonic() < end, "no record was dropped"
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        os.set_blocking(process.stderr.fileno(), True)
        assert b"log records were dropped" in log + process.stderr.read()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.stderr.close()


def test_it_serves_in_one_process_where_the_system_lacks_parts(
    artifacts: Path, tmp_path: Path
) -> None:
    """As on Windows; on macOS less is missing."""
    (tmp_path / "artifacts").symlink_to(artifacts)
    with Patched(tmp_path / "artifacts", WITHOUT_PARTS, workers=2, header_seconds=1) as server:
        server.wait_ready()
        assert server.workers() == []
        assert server.post("/predict", {"x": 2})[1]["y"] == [4.0]
        assert b"http_requests_total" in server.request("GET", "/metrics")[1]
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(15) == 0
    log = server.log.read_text()
    assert "one process without a supervisor" in log
    assert "Traceback" not in log
