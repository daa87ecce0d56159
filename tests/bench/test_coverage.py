"""bench.coverage: an interrupted run goes on where it was, and what it counts is counted right."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bench import coverage
from bench.coverage import Band, main, tables


def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "coverage.csv"
    fits = []
    polynomial = coverage.METHODS["curve-poly"]
    monkeypatch.setitem(
        coverage.METHODS, "curve-poly", lambda x, y, at: fits.append(len(x)) or polynomial(x, y, at)
    )
    words = ["--methods", "curve-poly", "--only", "sin,exp", "--noise", "0.05", "--keep", str(keep)]
    main([*words, "--sets", "1"])
    first = keep.read_text()
    keep.write_text(first + "sin,0.05,curve-po")  # killed while it wrote
    main([*words, "--sets", "2"])
    assert len(fits) == 4
    assert keep.read_text().startswith(first)
    rows = list(csv.DictReader(keep.open()))
    assert [(row["function"], row["set"]) for row in rows] == [
        ("sin", "0"), ("exp", "0"), ("sin", "1"), ("exp", "1")
    ]  # fmt: skip
    main([*words, "--sets", "3", "--minutes", "0"])
    assert len(fits) == 4
    assert "| sin | 5% | curve-poly | 2 |" in capsys.readouterr().out


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = coverage.FUNCTIONS["sin"]

    def half_right(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> Band:
        wrong = np.arange(len(at)) % 2
        half = np.full(len(at), 0.1)
        return Band(known.value(at) + wrong, half, known.slope(at), half)

    monkeypatch.setitem(coverage.METHODS, "half", half_right)
    figures = coverage.measure(known, 0.05, "half", 0)
    everywhere = np.linspace(known.low, known.high, 1001)
    widths = [0.2 / np.ptp(known.value(everywhere)), 0.2 / np.ptp(known.slope(everywhere))]
    assert figures == pytest.approx([0.5, widths[0], 1.0, widths[1]])
    rows = [
        dict(
            zip(coverage.COLUMNS, ("sin", "0.05", "half", str(n), *map(str, figures)), strict=True)
        )
        for n in range(2)
    ]
    assert "| half | 1 | 50.0 | 50.0 |" in tables(rows)
    assert "100.0 ± 0.0" in tables(rows)
