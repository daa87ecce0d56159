"""The two fits: the right degree, the right coefficients, reproducible, and honest derivatives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.intervals import quantile
from training.data import stand_in
from training.data.points import read_points
from training.errors import JobError
from training.fit import mlp as fits
from training.fit import polynomial as polynomials
from training.fit.fitted import Fitted, r_squared, residuals_correlate
from training.fit.mlp import fit_mlp
from training.fit.polynomial import fit_polynomial
from training.fit.process import fit_process
from training.networks.curve import CurveMLP, Polynomial
from training.networks.deviation import parameter_gradients
from training.networks.process import GaussianProcess, ProcessDeviation, kernel, line_basis
from training.publish import slopes as slopes_module
from training.publish.derivatives import curve_derivative, derivative, frozen
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


def left_out(x: Array, y: Array, degree: int) -> Array:
    """The squared error at each point of a polynomial fitted to the others."""
    squares = []
    for index in range(len(x)):
        kept = np.arange(len(x)) != index
        basis = np.polynomial.Chebyshev.fit(x[kept], y[kept], degree, domain=[x.min(), x.max()])
        squares.append((basis(x[index]) - y[index]) ** 2)
    return np.array(squares)


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_decides_the_degree(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.5, len(X))
    fit = fit_polynomial(X, cubic(X) + noise)
    assert [error.degree for error in fit.errors] == list(range(24))
    held_out = [error.leave_one_out for error in fit.errors]
    best = int(np.argmin(held_out))
    squares = [left_out(X, cubic(X) + noise, degree) for degree in range(best + 1)]
    worse = [each - squares[best] for each in squares]
    within = [bool(each.mean() <= each.std(ddof=1) / np.sqrt(len(X))) for each in worse]
    assert fit.degree == within.index(True)
    # Too stiff is never chosen; what is chosen knows the truth better than the most flexible does.
    assert fit.degree >= 3
    flexible = fit_polynomial(X, cubic(X) + noise, degree=12)
    between = np.linspace(-2, 3, 500)
    chosen, wild = (
        np.mean((np.polyval(each.coefficients or (), between) - cubic(between)) ** 2)
        for each in (fit, flexible)
    )
    assert chosen < wild


def test_leave_one_out_is_what_leaving_out_gives() -> None:
    """The formula, against refitting without each point in turn."""
    y = cubic(X) + np.random.default_rng(2).normal(0, 0.5, len(X))
    for error in fit_polynomial(X, y).errors[:6]:
        expected = np.mean(left_out(X, y, error.degree))
        assert error.leave_one_out == pytest.approx(expected, rel=1e-8)


def test_far_from_zero_the_fit_is_still_good() -> None:
    """Years: in x itself the normal equations of degree 5 have no correct digit."""
    years = np.linspace(1990, 2020, 31)
    y = np.sin((years - 2005) / 6)
    fit = fit_polynomial(years, y, degree=7)
    assert fit.mse < 1e-3
    # Coefficients in x would be another function at the data, and are not given.
    assert fit.coefficients is None and fit.off > 1e-6
    t = (years - fit.scaling[0]) / fit.scaling[1]
    with torch.no_grad():
        served = fit.network(torch.from_numpy(years))
    np.testing.assert_allclose(np.polyval(fit.scaled_coefficients, t), served, atol=1e-12)
    (slope,) = measure_slopes(frozen(fit.network), [2005.0], (1990, 2020), unit=2 / 30)
    assert slope.autograd == pytest.approx(1 / 6, rel=0.05)


def test_all_coefficients_are_there_even_if_zero() -> None:
    fit = fit_polynomial(X, np.zeros_like(X), degree=4)
    assert fit.coefficients is not None and len(fit.coefficients) == 5
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
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    monkeypatch.setattr(fits, "RESTARTS", 1)
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
    monkeypatch.setattr(fits, "HIDDEN", ((2,), (5, 4)))
    monkeypatch.setattr(fits, "RESTARTS", 2)
    x = np.linspace(-2, 2, 30)
    fit = fit_mlp(x, np.sin(4 * x), seed=0)
    assert list(dict.fromkeys(each.hidden for each in fit.candidates)) == [(2,), (5, 4)]
    assert fit.chosen.held_out_mse == min(each.held_out_mse for each in fit.candidates)
    assert fit.network.hidden == fit.chosen.hidden == (5, 4)
    assert fit.network.dense(1).out_features == 5 and fit.network.dense(2).out_features == 4


def test_many_bends_get_a_wider_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """sin 3x on 0…30: fourteen periods, which no small network finds from usual weights."""
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    x = np.linspace(0, 30, 120)
    y = np.sin(3 * x)
    fit = fit_mlp(x, y, seed=0)
    assert fit.chosen.hidden == fits.LARGER[0]
    assert r_squared(fit.mse, y) > 0.99
    polynomial = fit_polynomial(x, y)
    assert residuals_correlate(polynomial.network, x, y) > 0.5  # too stiff; this isn't noise


def test_leaving_one_out_of_a_network_is_what_refitting_gives() -> None:
    """The formula to first order, against refits from the same weights."""
    generator = np.random.default_rng(0)
    t = np.linspace(-1, 1, 25)
    u = np.sin(3 * t) + generator.normal(0, 0.1, 25)
    problem = fits._Problem(t, u, (6,), 0.003)
    weights = problem.minimise(fits._first_weights(generator, (6,)), 500)
    squared = []
    for index in range(25):
        kept = np.arange(25) != index
        # The penalty is against the sum over the points that remain.
        without = fits._Problem(t[kept], u[kept], (6,), 0.003 * 25 / 24)
        refitted = without.minimise(weights, 500)
        output, _ = problem._outputs(refitted, t[index : index + 1])
        squared.append(float(output[0] - u[index]) ** 2)
    assert problem.leave_one_out(weights) == pytest.approx(np.mean(squared), rel=0.3)


def test_the_unit_of_y_and_x_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    monkeypatch.setattr(fits, "RESTARTS", 1)
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
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    monkeypatch.setattr(fits, "RESTARTS", 1)
    domain = (float(x.min()), float(x.max()))
    unit = (np.ptp(y) or np.abs(y).max() or 1.0) / np.ptp(x)
    places = [*np.linspace(*domain, 7), 3.0, 0.1, -0.5]
    fits_of_it: list[Fitted] = [fit_polynomial(x, y), fit_mlp(x, y, seed=0)]
    if len(np.unique(x)) >= 5:
        fits_of_it.append(fit_process(x, y))
    for fit in fits_of_it:
        assert fit.mse < 0.1
        if fit.deviation is not None:
            assert (fit.deviation(torch.from_numpy(x), 1) >= 0).all()
        for slope in measure_slopes(frozen(fit.network), places, domain, unit):
            assert np.isfinite([slope.value, slope.autograd, slope.central]).all()


def test_slopes_of_a_process_fitted_to_very_many_points() -> None:
    """Means of 500 points are nearly exact; the kernel matrix must stay well conditioned."""
    noise = np.random.default_rng(0)
    x = noise.uniform(0, 10, 100_000)
    fit = fit_process(x, np.sin(x) + 0.1 * noise.normal(size=x.size))
    for slope in measure_slopes(frozen(fit.network), [0.3, 2.5, 5.0, 9.9], (0, 10), unit=0.2):
        assert slope.disagreement < 5e-7
        assert slope.autograd == pytest.approx(np.cos(slope.x), abs=0.05)


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


def test_a_networks_gradients_by_its_parameters() -> None:
    """Against autograd: with respect to every parameter, and then once and twice in x."""
    torch.manual_seed(0)
    for hidden in ((5,), (4, 3)):
        network = CurveMLP((-1.0, 1.0), (-1.0, 1.0), hidden)
        t = torch.tensor([-0.7, 0.2, 1.3], dtype=torch.float64)

        def gradients(t: torch.Tensor, network: CurveMLP = network) -> torch.Tensor:
            rows = []
            for at in t:
                parts = torch.autograd.grad(
                    network(at.unsqueeze(0)).sum(), list(network.parameters()), create_graph=True
                )
                rows.append(torch.cat([part.flatten() for part in parts]))
            return torch.stack(rows)

        step = 1e-4
        expected = gradients(t)
        torch.testing.assert_close(parameter_gradients(network, t, 0), expected)
        above, below = gradients(t + step), gradients(t - step)
        torch.testing.assert_close(
            parameter_gradients(network, t, 1), (above - below) / (2 * step), atol=1e-6, rtol=1e-6
        )
        torch.testing.assert_close(
            parameter_gradients(network, t, 2),
            (above - 2 * expected + below) / step**2,
            atol=1e-5,
            rtol=1e-5,
        )


def test_the_polynomials_error_of_one_degree_is_the_textbooks() -> None:
    """s·√(φᵀ(XᵀX)⁻¹φ) for f and f′, with m + 1 parameters taken from the degrees of freedom."""
    generator = np.random.default_rng(1)
    x = np.linspace(-2, 3, 25)
    y = cubic(x) + generator.normal(0, 0.5, 25)
    fit = fit_polynomial(x, y, degree=3)
    assert fit.deviation is not None and fit.degrees_of_freedom == 21
    design = np.vander(x, 4)
    variance = np.sum((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2) / 21
    at = np.array([-1.0, 0.3, 2.9, 5.0])
    slopes = np.stack([3 * at**2, 2 * at, np.ones(4), np.zeros(4)], axis=1)
    for order, rows in ((0, np.vander(at, 4)), (1, slopes)):
        expected = np.sqrt(
            variance * np.einsum("ni,ij,nj->n", rows, np.linalg.inv(design.T @ design), rows)
        )
        found = fit.deviation(torch.from_numpy(at), order)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_coefficients_that_fall_off_are_the_normal_distributions() -> None:
    """Means, covariances and weights of the hyperparameters against the formulas written out."""
    generator = np.random.default_rng(6)
    x = np.sort(generator.uniform(-2, 3, 30))
    y = np.exp(x / 2) + generator.normal(0, 0.2, 30)
    size, freedom = 9, 28
    basis = np.polynomial.chebyshev.chebvander((2 * x - x[0] - x[-1]) / (x[-1] - x[0]), size - 1)
    rest = np.linalg.qr(basis[:, :2], mode="complete")[0][:, 2:]  # what no straight line explains
    found = polynomials._posteriors(x, y, size, 2)
    assert sum(node.weight for node in found) == pytest.approx(1)
    expected = {}
    for fall in polynomials.FALLS:
        for ratio in polynomials.RATIOS:
            deviations = fall ** np.arange(size - 2)
            bent = basis[:, 2:] * deviations
            spread = rest.T @ (bent @ bent.T + ratio * np.eye(30)) @ rest
            error = rest.T @ y @ np.linalg.solve(spread, rest.T @ y)
            likelihood = -np.linalg.slogdet(spread)[1] / 2 - freedom / 2 * np.log(error)
            precision = basis.T @ basis / ratio + np.diag([0, 0, *deviations**-2.0])
            mean = np.linalg.solve(precision, basis.T @ y / ratio)
            covariance = error / freedom * np.linalg.inv(precision)
            expected[float(fall), float(ratio)] = likelihood, mean, covariance
    best = max(likelihood for likelihood, _, _ in expected.values())
    kept = [each for each in expected.values() if each[0] > best + np.log(polynomials.LEAST_WEIGHT)]
    total = sum(np.exp(likelihood - best) for likelihood, _, _ in kept)
    assert len(found) == len(kept) > 3
    for node, (likelihood, mean, covariance) in zip(found, kept, strict=True):
        assert node.weight == pytest.approx(np.exp(likelihood - best) / total, rel=1e-4)
        np.testing.assert_allclose(node.mean, mean, atol=1e-6)
        np.testing.assert_allclose(node.root @ node.root.T, covariance, rtol=1e-4, atol=1e-9)
    # The deviation is about the polynomial that serves, not about these means.
    fit = fit_polynomial(x, y)
    assert fit.deviation is not None and fit.degrees_of_freedom == freedom
    nodes = polynomials._posteriors(x, y, len(fit.errors), 2)
    for order in (0, 1, 2):
        at = np.array([-1.9, 0.3, 2.4, 3.5])
        t = (2 * at - x[0] - x[-1]) / (x[-1] - x[0])
        rows = (
            np.stack(
                [
                    np.polynomial.Chebyshev(unit).deriv(order)(t)
                    if order
                    else np.polynomial.Chebyshev(unit)(t)
                    for unit in np.eye(len(fit.errors))
                ],
                axis=1,
            )
            / ((x[-1] - x[0]) / 2) ** order
        )
        served = np.polyval(np.polyder(fit.coefficients or (), order), at)
        variance = sum(
            node.weight * (((rows @ node.root) ** 2).sum(1) + (rows @ node.mean - served) ** 2)
            for node in nodes
        )
        deviation = fit.deviation(torch.from_numpy(at), order).numpy()
        np.testing.assert_allclose(deviation, np.sqrt(variance), rtol=1e-6)


@pytest.mark.parametrize("few", [3, 4, 6])
def test_a_polynomial_of_few_points_has_errors_of_their_size(few: int) -> None:
    x = np.linspace(0, 1, few)
    fit = fit_polynomial(x, 2 * x + 0.1 * (-1.0) ** np.arange(few))
    assert fit.deviation is not None and fit.degrees_of_freedom == few - 2
    at = torch.linspace(0, 1, 11, dtype=torch.float64)
    for order in (0, 1, 2):
        deviation = fit.deviation(at, order)
        assert torch.isfinite(deviation).all()
    assert 0.01 < float(fit.deviation(at, 0).max()) < 1


def test_a_process_is_conditioned_on_its_points() -> None:
    """One choice of hyperparameters against the formulas written out, f and f′."""
    generator = np.random.default_rng(2)
    x = np.sort(generator.uniform(0, 5, 30))
    y = np.sin(x) + generator.normal(0, 0.05, 30)
    fit = fit_process(x, y)
    assert isinstance(fit.deviation, ProcessDeviation)
    process, mean = fit.deviation.process, fit.network
    assert isinstance(mean, GaussianProcess)
    at = torch.linspace(-1, 6, 15, dtype=torch.float64)
    for order in (1, 2, 3):
        torch.testing.assert_close(mean.derivative(at, order), derivative(mean, order)(at))
    # f′ at the data points themselves, where |d| has its corner.
    inside = torch.from_numpy(x)
    expected = central_difference(mean, inside, torch.full_like(inside, 1e-5))
    torch.testing.assert_close(mean.derivative(inside, 1), expected, rtol=1e-6, atol=1e-6)
    values, slopes = mean.derivative(at, 0), mean.derivative(at, 1)
    total = torch.zeros(2, 15, dtype=torch.float64)
    t = (at - mean.x_scaling[0]) / mean.x_scaling[1]
    points, half, scale = mean.points, mean.x_scaling[1], mean.y_scaling[1]
    line = torch.stack([torch.ones_like(points), points], 1)
    for j in range(len(process.weight)):
        noisy = process.whiten[j].inverse() @ process.whiten[j].inverse().T
        inverse = noisy.inverse()
        for order in (0, 1):
            similar = kernel(t, points, process.rate[j : j + 1], order)[0]
            basis = line_basis(t, order)
            rest = basis - similar @ inverse @ line
            prior = 1.0 if order == 0 else float(process.rate[j]) ** 2 / 5
            variance = (
                prior
                - (similar @ inverse * similar).sum(1)
                + (rest @ (line.T @ inverse @ line).inverse() * rest).sum(1)
            ) * process.amplitude[j]
            own = basis @ process.line[j] + similar @ process.alpha[j]
            served = ((values - mean.y_scaling[0]) if order == 0 else slopes * half) / scale
            total[order] += process.weight[j] * (variance + (own - served) ** 2)
    for order in (0, 1):
        found = fit.deviation(at, order)
        torch.testing.assert_close(
            found, total[order].sqrt() * scale / half**order, rtol=1e-4, atol=1e-9
        )
    near, far = fit.deviation(torch.tensor([2.5, 20.0], dtype=torch.float64), 0)
    assert far > 20 * near  # it widens outside


def test_many_points_are_averaged_by_the_process() -> None:
    generator = np.random.default_rng(3)
    x = generator.uniform(0, 6, 5000)
    fit = fit_process(x, np.sin(x) + generator.normal(0, 0.3, 5000))
    assert fit.kernels == 200 and fit.mse == pytest.approx(0.09, rel=0.1)
    noise = sum(node.weight * node.noise for node in fit.nodes)
    assert noise == pytest.approx(0.3, rel=0.05)
    assert fit.deviation is not None
    at = torch.linspace(0.3, 5.7, 50, dtype=torch.float64)
    off = (fit.network(at) - torch.sin(at)).abs() / fit.deviation(at, 0)
    assert (off < 2.5).float().mean() > 0.9


@pytest.mark.parametrize("fitter", [fit_polynomial, fit_process])
def test_the_interval_holds_the_truth_as_often_as_it_says(fitter: Callable[..., Fitted]) -> None:
    """Of 60 data sets of sin x, f and f′ at ten places; `bench.coverage` has the whole study."""
    generator = np.random.default_rng(4)
    inside = []
    for _ in range(60):
        x = np.sort(generator.uniform(-3, 3, 40))
        fit = fitter(x, np.sin(x) + generator.normal(0, 0.1, 40))
        assert fit.deviation is not None
        at = torch.from_numpy(generator.uniform(x.min(), x.max(), 10))
        reach = quantile(0.95, fit.degrees_of_freedom)
        network = frozen(fit.network)
        for order, truth in ((0, torch.sin(at)), (1, torch.cos(at))):
            found = curve_derivative(network, order)(at) if order else network(at)
            inside.append(((found - truth).abs() <= reach * fit.deviation(at, order)).numpy())
    assert 0.91 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("function", [np.sin, lambda x: np.exp(x / 2)])
def test_many_points_are_fitted_by_way_of_their_means(
    function: Callable[[Array], Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    monkeypatch.setattr(fits, "MOST_POINTS", 300)
    generator = np.random.default_rng(1)
    x = generator.uniform(-3, 3, 12_000)
    y = function(x) + generator.normal(0, 0.1, len(x))
    at = torch.linspace(-2.7, 2.7, 31, dtype=torch.float64)

    def fitted() -> tuple[float, Array, Array]:
        fit = fit_mlp(x, y, seed=0)
        assert fit.deviation is not None
        slopes = derivative(frozen(fit.network))(at)
        return fit.mse, slopes.numpy(), fit.deviation(at, 1).detach().numpy().ravel()

    mse, slopes, _ = fitted()
    monkeypatch.setattr(fits, "MANY_POINTS", len(x) + 1)
    plain_mse, plain_slopes, errors = fitted()
    assert not np.array_equal(slopes, plain_slopes)  # the two did go different ways
    assert mse == pytest.approx(plain_mse, rel=1e-4)
    assert np.all(np.abs(slopes - plain_slopes) < 0.5 * errors)
