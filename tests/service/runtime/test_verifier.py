"""Verdicts are shared by the processes of a host; a process that dies refuses one version only."""

import multiprocessing
import sys
from pathlib import Path

import pytest

from service.runtime import verifier, verifying
from service.runtime.verifier import Refused, Verdicts, Verifier
from service.settings import Settings
from tests.tiny_artifacts import publish_curve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="one process serves there")


def test_each_version_is_verified_once_a_host(tmp_path, monkeypatch) -> None:
    """What a forked process finds, this one knows without verifying, and waits for meanwhile."""
    folder = publish_curve(tmp_path).folder
    shared = Verdicts()
    monkeypatch.setattr(verifier, "shared_verdicts", lambda: shared)
    context = multiprocessing.get_context("fork")
    go, begun = context.Event(), context.Event()

    def other() -> None:
        found = Verifier(Settings())
        assert shared.claim(found._key("k"))
        begun.set()
        go.wait(60)
        shared.put(found._key("k"), {"reason": "as the other process says"})

    process = context.Process(target=other)
    process.start()
    assert begun.wait(60)
    mine = Verifier(Settings())
    monkeypatch.setattr(verifier, "VerifyingProcess", lambda *_: pytest.fail("verified twice"))
    future = mine.submit(folder, "k")
    with pytest.raises(TimeoutError):
        future.result(0.3)
    go.set()
    with pytest.raises(Refused, match="as the other process says"):
        future.result(60)
    process.join()
    mine.stop()


def test_work_that_a_dead_process_left_is_done_by_another(tmp_path, monkeypatch) -> None:
    folder = publish_curve(tmp_path).folder
    shared = Verdicts()
    monkeypatch.setattr(verifier, "shared_verdicts", lambda: shared)
    mine = Verifier(Settings())
    process = multiprocessing.get_context("fork").Process(
        target=lambda: shared.claim(mine._key("k"))
    )
    process.start()
    process.join()
    assert len(mine.submit(folder, "k").result(60).functions) == 4
    mine.stop()


def test_a_process_that_cannot_start_says_why(tmp_path, monkeypatch) -> None:
    refusing = [sys.executable, "-c", "raise SystemExit('no room here')"]
    monkeypatch.setattr(verifying, "command", lambda _: refusing)
    found = Verifier(Settings())
    with pytest.raises(Refused, match="failed: no room here"):
        found.submit(Path(tmp_path), "another").result(60)
    found.stop()
