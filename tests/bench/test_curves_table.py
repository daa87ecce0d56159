"""bench.curves: an interrupted run goes on where it was, and its table shows medians."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import curves
from bench.curves import main


def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "curves.csv"
    asked = []

    def off_by_the_seed(x: np.ndarray, y: np.ndarray, at: np.ndarray, seed: int) -> np.ndarray:
        asked.append(seed)
        return np.cos(at) + seed / 100 * (1 - np.cos(3))  # per cent of the range of its slope

    monkeypatch.setattr(curves, "FITTERS", {"off": off_by_the_seed})
    words = ["--only", "sin", "--noise", "0.02", "--keep", str(keep)]
    main([*words, "--seeds", "1"])
    first = keep.read_text()
    keep.write_text(first + "sin,0.02,of")  # killed while it wrote
    main([*words, "--seeds", "3"])
    assert asked == [0, 1, 2]
    assert keep.read_text().startswith(first)
    assert [row["seed"] for row in csv.DictReader(keep.open())] == ["0", "1", "2"]
    assert "| sin | 1.00 |" in capsys.readouterr().out
    main([*words, "--seeds", "5", "--minutes", "0"])
    assert asked == [0, 1, 2]
    shown = capsys.readouterr().out
    assert "median of 5 seeds, so far of 3 to 3" in shown
    assert "| sin | 1.00 |" in shown


def test_slopes_of_the_known_functions_are_theirs() -> None:
    for name, known in curves.FUNCTIONS.items():
        x = np.linspace(known.low, known.high, 200)[1:-1]
        step = 1e-6
        central = (known.value(x + step) - known.value(x - step)) / (2 * step)
        assert np.abs(central - known.slope(x)).max() < 2e-3 * np.ptp(known.slope(x)), name
