"""Quantiles against tables (Abramowitz and Stegun, table 26.10, the normal's) and SciPy's."""

import pytest

from contract.intervals import quantile


@pytest.mark.parametrize(
    ("level", "freedom", "expected"),
    [
        (0.95, None, 1.959964),
        (0.9, None, 1.644854),
        (0.5, 1, 1.0),
        (0.95, 1, 12.706205),
        (0.95, 2, 4.302653),
        (0.95, 5, 2.570582),
        (0.99, 10, 3.169273),
        (0.9, 30, 1.697261),
        (0.95, 120, 1.979930),
        (0.95, 1e5, 1.959988),
        (0.999, 3, 12.923979),
        (0.6, 17.5, 0.862646),
        (0.01, 1, 0.0157093),
        (0.01, 500, 0.0125397),
        (0.9999, 1, 6366.19767),
        (0.9999, 2, 99.9924998),
        (0.9999, 500, 3.9222092),
        (0.9999, 1e5, 3.8907488),
    ],
)
def test_quantiles(level: float, freedom: float | None, expected: float) -> None:
    assert quantile(level, freedom) == pytest.approx(expected, rel=5e-6)


@pytest.mark.parametrize("level", [1e-300, 0.0, 0.009, 0.99991, 1.0, -0.5, 95.0, float("nan")])
def test_a_level_says_something(level: float) -> None:
    with pytest.raises(ValueError, match=r"from 0\.01 to 0\.9999"):
        quantile(level, 5)
