"""Which of a function's graphs serves: of those that agree, the one that is fastest here."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.runtime import loader
from service.runtime.loader import fastest, load, time_in_turn
from service.runtime.session import GraphError
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
        (("CPUExecutionProvider",), time.thread_time),  # waiting for it is not counted
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


class FixedAndEach:
    """Takes 20 µs a call and 0.1 µs a row, by a clock of its own. Fails over ``most`` rows."""

    def __init__(self, most: int) -> None:
        self.now, self.most = 0.0, most
        self.rows: list[int] = []
        self.sample_seconds = self._takes(64)

    def run(self, x: np.ndarray, _theta: np.ndarray) -> None:
        """Take the time for as many rows."""
        if len(x) > self.most:
            raise GraphError("too many")
        self.rows.append(len(x))
        self.now += self._takes(len(x))

    def _takes(self, rows: int) -> float:
        return 20e-6 + 1e-7 * rows


def test_what_a_row_takes_is_told_by_many_rows() -> None:
    """By 64 of them it would seem to take four times as long, and 2,048 to be long work."""
    for most, rows in ((10_000, 2048), (100, 64)):
        session = FixedAndEach(most)
        inputs = [np.zeros(64), np.zeros(3)]
        cost = loader._cost(session, inputs, [True, False], 128, lambda: session.now)  # type: ignore[arg-type]  # noqa: B023
        assert cost == (pytest.approx(20e-6 + 1e-7 * rows), rows, 3 * rows + 3)
        assert session.rows == [rows] * loader.MORE_RUNS * (rows > 64)


def test_rows_are_those_of_an_input_that_has_them() -> None:
    class ParameterFirst(FixedAndEach):
        def run(self, theta: np.ndarray, x: np.ndarray) -> None:
            super().run(x, theta)

    session, inputs = ParameterFirst(100), [np.zeros(3), np.zeros(64)]
    _, rows, numbers = loader._cost(session, inputs, [False, True], 128, lambda: session.now)  # type: ignore[arg-type]
    assert (rows, numbers) == (64, 3 * 64 + 3)


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
