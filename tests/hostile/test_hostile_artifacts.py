"""Artifacts that lie are refused with the reason, and nothing else is held up by them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from contract.graphs import GraphUnreadable, has_external_data
from service.runtime import session as sessions
from service.runtime.registry import Registry
from service.runtime.session import GraphError, Session
from service.settings import Settings
from tests.hostile import artifacts as lies
from tests.hostile.process import cpu_seconds
from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_curve

JSON = {"content-type": "application/json"}


@pytest.fixture
def secret(tmp_path, monkeypatch) -> Iterator[str]:
    """A file of eight bytes in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apikeys.txt").write_bytes(np.float64(42).tobytes())
    return "apikeys.txt"


def test_external_data_is_refused_by_the_session_itself(secret, tmp_path, monkeypatch) -> None:
    function = publish_curve(tmp_path).manifest.functions["value"]
    content = lies.external(secret)
    with monkeypatch.context() as patch:
        # What would happen without the entry: the file is read.
        patch.setattr(sessions, "NO_FOLDER", ".")
        read = Session(content, function, ("CPUExecutionProvider",), 1)
        assert read.run(np.array([1.0])) == [42.0]
    with pytest.raises(GraphError, match=r"[Ee]xternal data"):
        Session(content, function, ("CPUExecutionProvider",), 1)


@pytest.mark.parametrize("make", [lies.external, lies.hidden_external])
def test_external_data_is_found_in_the_graph_wherever_it_stands(make) -> None:
    assert has_external_data(make("apikeys.txt"))
    for path in Path("artifacts").glob("*/*/*.onnx"):
        assert not has_external_data(path.read_bytes()), path


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 20,
        b"\x0a\x7fshort",
        b"\x3b",
        b"\x3a\x02\x32\x7f",
        b"\x08",
        b"\xba\x80\x80\x80\x10\0",  # a graph to parsers that drop the 33rd bit of a field's number
    ],
)
def test_what_is_no_graph_is_said_to_be_none(content) -> None:
    with pytest.raises(GraphUnreadable):
        has_external_data(content)


def test_a_graph_that_is_nested_without_end_is_refused() -> None:
    content = b""
    for _ in range(300):  # graph in attribute in node in graph
        for field in (6, 5, 1):
            size, prefix = len(content), bytearray([field << 3 | 2])
            while size > 127:
                prefix.append(size & 127 | 128)
                size >>= 7
            content = bytes(prefix) + bytes([size]) + content
    size, prefix = len(content), bytearray([7 << 3 | 2])
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    with pytest.raises(GraphUnreadable, match="deeper than 100"):
        has_external_data(bytes(prefix) + bytes([size]) + content)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def loose(folder: Path) -> None:
    functions = json.loads((folder / "manifest.json").read_text())["functions"]
    functions["value"]["graph"]["agreement"]["absolute_tolerance"] = 1e300
    edit(folder, functions=functions)


def no_gradient(folder: Path) -> None:
    functions = json.loads((folder / "manifest.json").read_text())["functions"]
    del functions["gradient"]
    edit(folder, functions=functions)


def other_type(folder: Path) -> None:
    functions = json.loads((folder / "manifest.json").read_text())["functions"]
    functions["value"]["inputs"][0]["dtype"] = "float32"
    edit(folder, functions=functions)


def test_every_lie_is_refused_with_its_reason_and_the_good_version_serves(tmp_path) -> None:
    """All at once, within the limits: a loop of 2⁶² rounds, 3 GB of zeros in 3 MB, and the rest."""
    cases = {
        "outside": (lies.publish, {"value.onnx": lies.external("apikeys.txt")}, "external data"),
        "endless": (
            lies.publish,
            {"value.onnx": lies.endless()},
            "verifying it takes more than 2 s",
        ),
        "bomb": (lies.publish, {"samples.npz": lies.bomb(3 << 30)}, "more than 512 MiB"),
        "empty": (lies.publish, {"samples.npz": lies.without_rows()}, "have no rows"),
        "loose": (loose, {}, "proves nothing"),
        "partial": (no_gradient, {}, "needs the function gradient"),
        "typed": (other_type, {}, "x should be float64[n], not float32[n]"),
    }
    for model, (make, files, _) in cases.items():
        publish_curve(tmp_path, model)
        folder = lies.publish(tmp_path, model, **files)
        if make is not lies.publish:
            make(folder)
    publish_curve(tmp_path, "innocent")
    limits = {"verify_seconds": 2, "verify_bytes": 512 << 20}
    registry = Registry(Settings(artifacts=tmp_path, **limits), threads=2)
    registry.refresh(240)
    registry.close()
    assert registry.get("innocent").manifest.version == 1
    for model, (_, _, reason) in cases.items():
        assert reason in registry.refused[model][2].reason, model
        assert registry.get(model).manifest.version == 1, model


def test_the_service_lives_on_while_a_version_is_verified_without_end(tmp_path) -> None:
    """Two workers: live at once, what is good serves, the rest is refused by one verification."""
    root = tmp_path / "artifacts"
    publish_curve(root)
    lies.publish(root, "endless", **{"value.onnx": lies.endless()})
    with ServerProcess(root, workers=2, verify_seconds=3, watch_seconds=0.2) as running:
        running.wait_listening()
        assert running.get("/health/live")[0] == 200
        assert running.get("/health/ready")[0] == 503
        until = time.monotonic() + 120
        while "verifying it takes" not in str(running.get("/models/endless")):
            assert time.monotonic() < until
            asked = time.monotonic()
            assert running.get("/health/live")[0] == 200
            assert time.monotonic() - asked < 2
            time.sleep(0.2)
        assert running.request("POST", "/predict", b'{"x": 1}', JSON)[0] == 200


def test_a_verification_without_end_ends_when_the_service_is_killed(tmp_path) -> None:
    """Its limit of processor time is its own: whoever was to stop it is gone."""
    root = tmp_path / "artifacts"
    publish_curve(root)
    lies.publish(root, "endless", **{"value.onnx": lies.endless()})
    with ServerProcess(root, verify_seconds=4) as running:
        running.wait_listening()
        verifiers: list[int] = []

        def is_working() -> bool:
            """Has the process that verifies worked for longer than its imports take?"""
            verifiers[:] = [pid for pid in below(running.process.pid) if verifies(pid)]
            return any(cpu_seconds(pid) > 3 for pid in verifiers)

        running.wait_until(is_working, "it is being verified")
        others = [pid for pid in below(running.process.pid) if pid not in verifiers]
        running.process.kill()
        running.process.wait()
        for pid in others:
            with suppress(ProcessLookupError):  # it may have noticed by itself
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 120
        while any(map(runs, verifiers)):
            assert time.monotonic() < until
            time.sleep(0.1)


def below(pid: int) -> list[int]:
    """Processes that ``pid`` or one below it has started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found + [other for child in found for other in below(child)]


def verifies(pid: int) -> bool:
    """Is it a process that verifies?"""
    with suppress(OSError):
        return b"service.runtime.verify" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def runs(pid: int) -> bool:
    """Is there such a process, and not only its exit status?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
