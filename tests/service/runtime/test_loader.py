"""Which of a function's graphs serves: of those that agree, the one that is fastest here."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.runtime import loader
from service.runtime.loader import fastest, load, time_in_turn
from service.settings import Settings
from tests.tiny_artifacts import publish_classifier


@pytest.mark.parametrize(
    ("milliseconds", "serving"),
    [
        ([0.7, 2.4], 0),  # int8 with VNNI
        ([2.4, 1.6], 1),  # int8 without it
        ([1.7, 1.6], 0),  # no clear difference
        ([0.04, 0.02], 0),  # clear, and too small to matter
        ([2.0, 1.5, 1.2], 2),
        ([2.0, 1.2, 1.5], 1),
        ([1.0], 0),
    ],
)
def test_another_graph_serves_where_it_is_clearly_faster(
    milliseconds: list[float], serving: int
) -> None:
    assert fastest([each / 1000 for each in milliseconds]) == serving


@pytest.mark.parametrize(
    ("seconds", "served", "reason"),
    [
        (
            [0.0024, 0.0016],
            "fp32",
            "takes 2.4 ms for a row on this machine, and probab",
        ),
        ([0.0007, 0.0024], "int8", None),
    ],
)
def test_the_served_graph_and_the_reason_are_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: list[float],
    served: str,
    reason: str | None,
) -> None:
    artifact = publish_classifier(tmp_path, int8_agrees=True)
    monkeypatch.setattr(loader, "time_in_turn", lambda *_: seconds)
    function = load(artifact.folder, Settings()).functions["probabilities"]
    assert function.graph.precision == served
    if reason is None:
        assert function.refused == ()
    else:
        (said,) = function.refused
        assert said.startswith("probabilities.int8.onnx: it ")
        assert reason in said


def test_only_graphs_that_agree_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = publish_classifier(tmp_path, int8_agrees=False)
    monkeypatch.setattr(loader, "time_in_turn", lambda *_: pytest.fail("one graph is left"))
    function = load(artifact.folder, Settings()).functions["probabilities"]
    assert function.graph.precision == "fp32"
    assert "differs from PyTorch's" in function.refused[0]


@pytest.mark.parametrize(
    ("providers", "clock"),
    [
        (("CPUExecutionProvider",), time.process_time),  # waiting for it is not counted
        (("AnyGPUExecutionProvider", "CPUExecutionProvider"), time.perf_counter),
    ],
)
def test_the_clock_counts_what_computes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    providers: tuple[str, ...],
    clock: Callable[[], float],
) -> None:
    artifact = publish_classifier(tmp_path, int8_agrees=True)
    clocks = []
    monkeypatch.setattr(
        loader, "time_in_turn", lambda _, __, clock: clocks.append(clock) or [1.0, 2.0]
    )
    load(artifact.folder, Settings(providers=providers))
    assert clocks == [clock]


def test_times_are_the_least_of_runs_in_turn() -> None:
    calls = []

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, *arrays: np.ndarray) -> None:
            calls.append((self.name, arrays[0].shape))

    ticks = iter([0, 9, 9, 12, *(100 * n for n in range(24))])  # 9, then 3; later runs take 100
    times = time_in_turn(
        [Slow("a"), Slow("b")],  # type: ignore[list-item]
        [np.zeros((1, 2))],
        lambda: next(ticks),
    )
    assert calls[:4] == [("a", (1, 2)), ("b", (1, 2))] * 2
    assert times == [9, 3]
