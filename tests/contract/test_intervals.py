"""Quantiles against tables (Abramowitz and Stegun, table 26.10, and the normal's)."""

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
    ],
)
def test_quantiles(level: float, freedom: float | None, expected: float) -> None:
    assert quantile(level, freedom) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, float("nan")])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(level, 5)


@pytest.mark.parametrize("level", [1e-300, 1e-17, 1e-9, 1e-3])
def test_small_levels_have_small_intervals(level: float) -> None:
    """The density of Student's t at 0, for 5 degrees of freedom, is 0.3796."""
    assert quantile(level, 5) == pytest.approx(level / (2 * 0.3796067), rel=1e-4, abs=1e-15)
