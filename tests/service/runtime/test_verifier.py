"""Verdicts are shared by the processes of a host; a process that dies refuses one version only."""

import errno
import multiprocessing
import os
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


@pytest.mark.parametrize("written", [None, 5])
def test_a_full_disk_costs_no_verdict(tmp_path, monkeypatch, written) -> None:
    """The version was waited for without end, and so was the lock that its worker held."""
    folder = publish_curve(tmp_path).folder
    shared = Verdicts()
    monkeypatch.setattr(verifier, "shared_verdicts", lambda: shared)
    write = os.pwrite

    def full(descriptor: int, content: bytes, place: int) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:written], place)

    mine = Verifier(Settings())
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert len(mine.submit(folder, "k").result(60).functions) == 4
    answer = {"reason": "of the next one, for which there is room again"}
    shared.put("next", answer)
    context = multiprocessing.get_context("fork")
    told, know = context.Pipe(duplex=False)

    def other() -> None:
        shared._known.clear()  # what it has by being forked: it is to read the file
        shared._read = 0
        know.send((shared.find("next"), shared.claim(mine._key("k"))))

    process = context.Process(target=other)
    process.start()
    assert told.poll(60) and told.recv() == (answer, True)
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
