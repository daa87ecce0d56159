"""The two fits: the right degree, the right coefficients, reproducible, and honest derivatives."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.data import stand_in
from training.data.points import read_points
from training.errors import JobError
from training.fit import curve as fits
from training.fit.curve import fit_mlp, fit_polynomial
from training.networks.curve import CurveMLP, Polynomial
from training.publish import slopes as slopes_module
from training.publish.derivatives import derivative, frozen
from training.publish.slopes import central_difference, measure_slopes

Array = NDArray[np.float64]
X = np.linspace(-2, 3, 25)


def cubic(x: Array) -> Array:
    return 2 * x**3 - x + 0.5


def test_a_polynomial_is_found_exactly() -> None:
    fit = fit_polynomial(X, cubic(X), degree=3)
    assert fit.degree == 3
    np.testing.assert_allclose(fit.coefficients, [2, 0, -1, 0.5], atol=1e-12)
    assert fit.mse < 1e-24
    with torch.no_grad():
        np.testing.assert_allclose(fit.network(torch.from_numpy(X)), cubic(X), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_decides_the_degree(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.5, len(X))
    fit = fit_polynomial(X, cubic(X) + noise)
    assert [error.degree for error in fit.errors] == list(range(13))
    held_out = [error.leave_one_out for error in fit.errors]
    assert fit.degree == int(np.argmin(held_out))
    # Too stiff is never chosen; what is chosen knows the truth better than the most flexible does.
    assert fit.degree >= 3
    flexible = fit_polynomial(X, cubic(X) + noise, degree=12)
    between = np.linspace(-2, 3, 500)
    chosen, wild = (
        np.mean((np.polyval(each.coefficients, between) - cubic(between)) ** 2)
        for each in (fit, flexible)
    )
    assert chosen < wild


def test_leave_one_out_is_what_leaving_out_gives() -> None:
    """The formula, against refitting without each point in turn."""
    y = cubic(X) + np.random.default_rng(2).normal(0, 0.5, len(X))
    for error in fit_polynomial(X, y).errors[:6]:
        squared = []
        for index in range(len(X)):
            kept = np.arange(len(X)) != index
            coefficients = np.polyfit(X[kept], y[kept], error.degree)
            squared.append((np.polyval(coefficients, X[index]) - y[index]) ** 2)
        assert error.leave_one_out == pytest.approx(np.mean(squared), rel=1e-8)


def test_far_from_zero_the_fit_is_still_good() -> None:
    """Years: in x itself the normal equations of degree 5 have no correct digit."""
    years = np.linspace(1990, 2020, 31)
    y = np.sin((years - 2005) / 6)
    fit = fit_polynomial(years, y, degree=7)
    assert fit.mse < 1e-3
    (slope,) = measure_slopes(frozen(fit.network), [2005.0], (1990, 2020), unit=2 / 30)
    assert slope.autograd == pytest.approx(1 / 6, rel=0.05)


def test_all_coefficients_are_there_even_if_zero() -> None:
    fit = fit_polynomial(X, np.zeros_like(X), degree=4)
    assert len(fit.coefficients) == 5
    assert len(fit.network.coefficients) == 5


def test_fewer_points_than_coefficients() -> None:
    x = np.array([0.0, 1.0, 1.0, 2.0])
    with pytest.raises(JobError, match=r"degree 3 has 4 coefficients.*only 3 different x"):
        fit_polynomial(x, x, degree=3)
    assert fit_polynomial(x, x, degree=2).mse < 1e-20


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_points_get_a_modest_degree(count: int) -> None:
    x = np.arange(count, dtype=np.float64)
    fit = fit_polynomial(x, 3 * x + 1)
    assert fit.degree == 1
    np.testing.assert_allclose(fit.coefficients, [3, 1], atol=1e-12)


def test_duplicates_with_different_y_are_averaged() -> None:
    x, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 2.0, 3.0, 5.0])
    assert fit_polynomial(x, y, degree=1).coefficients == pytest.approx((3, 1))


def test_the_network_fits_and_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "WEIGHT_DECAYS", (0.01,))
    monkeypatch.setattr(fits, "FOLDS", 2)
    points = read_points(stand_in.PATH)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second = (fit_mlp(points.x, points.y, seed=3) for _ in range(2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert first.mse == second.mse < 0.03
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])
    # Better than the noise would mean that it learned the noise by heart.
    assert first.mse > 0.3 * stand_in.NOISE**2
    other = fit_mlp(points.x, points.y, seed=4)
    assert other.mse != first.mse


def test_the_candidate_with_the_least_held_out_error_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fits, "WIDTHS", (2, 5))
    monkeypatch.setattr(fits, "WEIGHT_DECAYS", (1.0, 0.01))
    monkeypatch.setattr(fits, "FOLDS", 2)
    monkeypatch.setattr(fits, "REPEATS", 1)
    x = np.linspace(-2, 2, 30)
    fit = fit_mlp(x, np.sin(4 * x), seed=0)
    tried = [(candidate.width, candidate.weight_decay) for candidate in fit.candidates]
    assert tried == [(2, 1.0), (2, 0.01), (5, 1.0), (5, 0.01)]
    assert fit.chosen == fit.candidates[3]
    assert fit.chosen.held_out_mse == min(each.held_out_mse for each in fit.candidates)
    assert fit.network.dense1.out_features == fit.network.dense2.in_features == 5


def test_the_unit_of_y_and_x_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "WEIGHT_DECAYS", (0.01,))
    monkeypatch.setattr(fits, "FOLDS", 2)
    x, y = X, np.sin(X)
    plain = fit_mlp(x, y, seed=0)
    scaled = fit_mlp(1000 * x + 5e5, 1e-3 * y, seed=0)
    assert scaled.mse == pytest.approx(1e-6 * plain.mse, rel=0.5)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, np.full_like(X, 7.0)),
        (X, np.zeros_like(X)),
        (np.array([0.0, 1.0]), np.array([5.0, 5.5])),
        (np.linspace(1990, 2020, 31), np.sin(np.arange(31) / 5)),
        (np.linspace(0, 1e-9, 12), np.linspace(0, 1, 12) ** 2),
        (np.linspace(-1e12, 1e12, 12), np.linspace(-1, 1, 12) ** 3),
        (1e6 + np.linspace(0, 1, 12), np.linspace(0, 1, 12)),
        (np.repeat([0.0, 1.0, 2.0], 4), np.tile([0.0, 0.1, 0.2, 0.3], 3)),
    ],
    ids=["constant", "zero", "two", "years", "tiny", "huge", "offset", "duplicates"],
)
def test_odd_data_give_sound_slopes(monkeypatch: pytest.MonkeyPatch, x: Array, y: Array) -> None:
    monkeypatch.setattr(fits, "WEIGHT_DECAYS", (0.01,))
    monkeypatch.setattr(fits, "FOLDS", 2)
    domain = (float(x.min()), float(x.max()))
    unit = (np.ptp(y) or np.abs(y).max() or 1.0) / np.ptp(x)
    places = [*np.linspace(*domain, 7), 3.0, 0.1, -0.5]
    for fit in (fit_polynomial(x, y), fit_mlp(x, y, seed=0)):
        assert fit.mse < 0.1
        for slope in measure_slopes(frozen(fit.network), places, domain, unit):
            assert np.isfinite([slope.value, slope.autograd, slope.central]).all()


def test_every_slope_is_checked_against_the_others() -> None:
    polynomial = frozen(Polynomial([1.0, 2.0, 3.0], (-1.0, 3.0)))  # t = (x − 1)/2
    (slope,) = measure_slopes(polynomial, [2.0], (-1.0, 3.0), unit=1.0)
    assert slope.autograd == pytest.approx(2 / 2 + 6 * 0.5 / 2, rel=1e-14)
    assert slope.analytic == pytest.approx(slope.autograd, rel=1e-14)
    assert slope.central == pytest.approx(slope.autograd, rel=1e-9)
    assert slope.truth is None and not slope.extrapolated
    assert slope.disagreement < 1e-9
    (outside,) = measure_slopes(polynomial, [3.5], (-1.0, 3.0), unit=1.0, truth=lambda x: 10 * x)
    assert outside.extrapolated and outside.truth == 35.0


@pytest.mark.parametrize("means", ["analytic", "central_difference"])
def test_a_wrong_slope_is_refused(monkeypatch: pytest.MonkeyPatch, means: str) -> None:
    right = getattr(slopes_module, means)
    monkeypatch.setattr(slopes_module, means, lambda *given: right(*given) + 1e-4)
    polynomial = frozen(Polynomial([1.0, 2.0, 3.0], (-1.0, 3.0)))
    with pytest.raises(JobError, match=r"f′\(2\) is .* by autograd but"):
        measure_slopes(polynomial, [2.0], (-1.0, 3.0), unit=1.0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_the_network_by_central_differences(order: int) -> None:
    """Each order against differences of the order below, over the data and beyond."""
    torch.manual_seed(0)
    network = frozen(CurveMLP((-1.0, 4.0), (-2.0, 2.0)))
    lower = derivative(network, order - 1) if order > 1 else network
    x = torch.linspace(-2, 5, 50, dtype=torch.float64)
    expected = central_difference(lower, x, torch.full_like(x, 1e-5))
    torch.testing.assert_close(derivative(network, order)(x), expected, rtol=1e-6, atol=1e-8)
