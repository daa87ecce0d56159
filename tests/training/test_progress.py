"""What a log says while a long step goes on."""

import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import pytest

from training import progress


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_long_step_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.001)
    said = StringIO()
    with redirect_stdout(said), progress.told("reading", "files", 2000) as advance:
        assert said.getvalue() == "reading\n"
        advance(1200)
        # The quantiser, for one, keeps to itself what is printed meanwhile.
        with redirect_stdout(StringIO()):
            until(lambda: "\n  reading: 1,200 of 2,000 files, 0 s so far\n" in said.getvalue())
    with redirect_stdout(said), progress.told("exporting"):
        until(lambda: "\n  exporting: 0 s so far\n" in said.getvalue())
    assert capsys.readouterr() == ("", "")


def test_nothing_more_is_said_once_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = threading.active_count()
    said = StringIO()
    with redirect_stdout(said), pytest.raises(KeyboardInterrupt), progress.told("exporting"):
        assert threading.active_count() == threads + 1
        raise KeyboardInterrupt
    assert threading.active_count() == threads
    assert said.getvalue() == "exporting\n"
