"""A publication that never ends stops, with a line that says so."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradserve import Publication, publish
from training.errors import JobError
from training.functions.refusal import Refusal
from training.functions.time_limit import time_limit
from training.jobs.publish import _seconds

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = """
import itertools
import torch
from gradserve import Publication


def f(x):
    for _ in itertools.count():
        x = x + 1


def build():
    return Publication(f, {"x": torch.zeros(8, 1)})
"""


def test_what_takes_too_long_is_stopped() -> None:
    words = r"hvp: too long: it was not done after 0\.05 seconds"
    with pytest.raises(Refusal, match=words), time_limit("hvp", 0.05):
        while True:
            pass


def test_what_is_done_in_time_is_left_alone() -> None:
    for _ in range(200):  # ends about when the time does
        try:
            with time_limit("value", 0.002):
                time.sleep(0.002)
        except Refusal:
            continue
    with time_limit("value", 0):
        pass
    time.sleep(0.01)  # nothing comes afterwards


def test_a_function_cannot_catch_it() -> None:
    with pytest.raises(Refusal, match="too long"), time_limit("value", 0.05):
        for _ in itertools.count():
            try:
                time.sleep(0.01)
            except Exception:  # what a user's function may do
                continue


def test_a_derivative_that_never_ends(tmp_path: Path) -> None:
    """Recording finds an endless loop where the plain call has none; nothing is published."""

    def f(x: Tensor) -> Tensor:
        while torch.is_grad_enabled() and x.requires_grad:
            x = x * 1.0
        return x

    asked = Publication(f, {"x": torch.ones(8, 1)}, ("y",), ("vjp",))
    with pytest.raises(JobError, match="vjp: too long"):
        publish(asked, "endless", tmp_path, time_limit=3)
    assert [path.name for path in (tmp_path / "endless").iterdir()] == [".lock"]


def test_the_command_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, "-m", "gradserve", "publish", str(tmp_path / "endless.py")]
    done = subprocess.run(
        [*command, "--artifacts", str(tmp_path), "--time-limit", "1"],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "value: too long: it was not done after 1 seconds" in done.stderr


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e300", "soon"])
def test_a_limit_that_is_none(text: str) -> None:
    with pytest.raises(Exception, match="no number of seconds from 0 up"):
        _seconds(text)
