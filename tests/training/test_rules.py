"""The rules for operators that ONNX lacks compute what PyTorch computes.

Called as ordinary functions: an export of each would take minutes and say nothing more.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.publish.agreement import GraphRunner
from training.publish.export import export
from training.publish.rules import (
    RULES,
    convolution,
    linear_algebra,
    pooling,
    reductions,
    sampling,
    scalars,
    special,
)

DOUBLE = torch.float64
aten = torch.ops.aten


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(sum(shape)))


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    scale = float(expected[expected.isfinite()].abs().max())
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)


FORWARD = [
    # transposed, stride, padding, dilation, output padding, groups
    (False, (1, 1), (0, 0), (1, 1), (0, 0), 1),
    (False, (2, 1), (1, 2), (1, 1), (0, 0), 2),
    (False, (2, 3), (1, 0), (2, 1), (0, 0), 1),
    (True, (1, 1), (0, 0), (1, 1), (0, 0), 1),
    (True, (2, 2), (1, 0), (1, 1), (1, 0), 2),
    (True, (3, 2), (0, 1), (1, 2), (0, 0), 1),
]


@pytest.mark.parametrize("settings", FORWARD)
def test_convolution_and_its_gradients(settings: tuple[Any, ...]) -> None:
    transposed, stride, padding, dilation, output_padding, groups = settings
    x = normal(3, 4, 9, 8)
    weight = normal(4, 6 // groups, 3, 2) if transposed else normal(6, 4 // groups, 3, 2)
    rest = (list(stride), list(padding), list(dilation), transposed, list(output_padding), groups)
    expected = aten.convolution(x, weight, normal(6), *rest)
    same(convolution.convolution(x, weight, normal(6), *rest), expected)
    gradient = normal(*expected.shape)
    wanted = aten.convolution_backward(gradient, x, weight, [6], *rest, [True] * 3)
    found = convolution.convolution_backward(gradient, x, weight, [6], *rest, [True] * 3)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine is not None
        same(mine, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        ([2, 2], [], [0, 0], False, True, None),
        ([3, 2], [2, 1], [1, 1], False, False, None),
        ([3, 3], [2, 2], [1, 1], True, True, None),
        ([2, 3], [3, 1], [0, 1], False, True, 5),
    ],
)
def test_average_pooling(settings: tuple[Any, ...]) -> None:
    x = normal(2, 3, 9, 8)
    expected = aten.avg_pool2d(x, *settings)
    if not settings[3]:
        same(pooling.avg_pool(2, x, *settings), expected)
    gradient = normal(*expected.shape)
    wanted = aten.avg_pool2d_backward(gradient, x, *settings)
    same(pooling.avg_pool_backward(gradient, x, *settings), wanted)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (7, 7)])
def test_adaptive_pooling(sizes: tuple[int, int]) -> None:
    x = normal(2, 3, 9, 8)
    same(pooling.adaptive_avg_pool(x, sizes), aten._adaptive_avg_pool2d(x, sizes))
    gradient = normal(2, 3, *sizes)
    wanted = aten._adaptive_avg_pool2d_backward(gradient, x)
    same(pooling.adaptive_avg_pool_backward(2, gradient, x), wanted)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (9, 8), (5, 11)])
def test_adaptive_pooling_of_maxima(sizes: tuple[int, int]) -> None:
    x = normal(2, 3, 9, 8).round()  # which has equal maxima
    wanted = aten.adaptive_max_pool2d(x, sizes)
    found = pooling.adaptive_max_pool(x, sizes)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)
    gradient = normal(2, 3, *sizes)
    expected = aten.adaptive_max_pool2d_backward(gradient, x, wanted[1])
    same(pooling.max_pool_backward(2, gradient, x, found[1]), expected)


def test_pooling_in_three_dimensions() -> None:
    x, settings = normal(2, 3, 6, 5, 4), ([2, 2, 2], [2, 1, 2], [0, 1, 0])
    wanted = aten.avg_pool3d(x, *settings)
    same(RULES[aten.avg_pool3d.default](x, *settings), wanted)
    rest = (*settings, False, True, None)
    back = aten.avg_pool3d_backward(wanted, x, *rest)
    same(RULES[aten.avg_pool3d_backward.default](wanted, x, *rest), back)
    for sizes in ([1, 1, 1], [3, 2, 5]):
        wanted = aten._adaptive_avg_pool3d(x, sizes)
        same(RULES[aten._adaptive_avg_pool3d.default](x, sizes), wanted)
        back = aten._adaptive_avg_pool3d_backward(wanted, x)
        same(RULES[aten._adaptive_avg_pool3d_backward.default](wanted, x), back)
        values, places = aten.adaptive_max_pool3d(x, sizes)
        found = RULES[aten.adaptive_max_pool3d.default](x, sizes)
        assert torch.equal(found[0], values)
        assert torch.equal(found[1], places)
        back = aten.adaptive_max_pool3d_backward(values, x, places)
        same(RULES[aten.adaptive_max_pool3d_backward.default](values, x, places), back)
    values, places = aten.max_pool3d_with_indices(x, *settings)
    rest = (*settings, [1, 1, 1], False, places)
    back = aten.max_pool3d_with_indices_backward(values, x, *rest)
    same(RULES[aten.max_pool3d_with_indices_backward.default](values, x, *rest), back)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("mode", [0, 1])
def test_grid_sample(mode: int, padding: int, align_corners: bool) -> None:
    x, grid, gradient = normal(3, 2, 5, 4), normal(3, 4, 6, 2), normal(3, 2, 4, 6)
    settings = (mode, padding, align_corners)
    wanted = aten.grid_sampler_2d_backward(gradient, x, grid, *settings, [True, True])
    found = sampling.grid_sampler_2d_backward(gradient, x, grid, *settings, [True, True])
    same(found[0], wanted[0])
    if mode == 0:
        same(found[1], wanted[1])
    else:
        assert not found[1].any()
    rule = sampling.RULES[aten.grid_sampler_2d.default]
    same(rule(x, grid, *settings), aten.grid_sampler_2d(x, grid, *settings))


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_linear_algebra(size: int) -> None:
    a, b = normal(4, size, size), normal(4, size, 3)
    lu = linear_algebra.solve(a, b)
    same(lu[0], torch.linalg.solve(a, b), 1e-9)
    same(linear_algebra.lu_solve(*lu[1:3], b, adjoint=True), torch.linalg.solve(a.mT, b), 1e-9)
    left = torch.linalg.solve(a, b.mT, left=False)
    same(linear_algebra.solve(a, b.mT, left=False)[0], left, 1e-9)
    same(linear_algebra.inverse(a)[0], torch.linalg.inv(a), 1e-9)
    same(linear_algebra.determinant(a)[0], torch.linalg.det(a), 1e-10)
    sign, logarithm = linear_algebra.log_determinant(a)[:2]
    expected = torch.linalg.slogdet(a)
    same(sign, expected.sign)
    same(logarithm, expected.logabsdet, 1e-10)
    spd = a @ a.mT + torch.eye(size, dtype=DOUBLE)
    lower = torch.linalg.cholesky(spd)
    same(linear_algebra.cholesky(spd)[0], lower)
    for upper, unitriangular in ((False, False), (True, False), (True, True)):
        triangle = lower.mT if upper else lower
        options = {"upper": upper, "unitriangular": unitriangular}
        wanted = torch.linalg.solve_triangular(triangle, b, **options)
        same(linear_algebra.solve_triangular(triangle, b, **options), wanted, 1e-9)


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 5, 3), (3, 5), (2, 4, 4), (2, 2, 6)])
def test_qr(shape: tuple[int, ...]) -> None:
    a = normal(*shape)
    upright = a.clone()
    upright[..., 1:, 0] = 0  # a column that LAPACK leaves as it is
    for each in (a, upright, -a):
        for mode in ("reduced", "complete"):
            wanted = torch.linalg.qr(each, mode=mode)
            for mine, theirs in zip(linear_algebra.qr(each, mode), wanted, strict=True):
                same(mine, theirs)
    assert linear_algebra.qr(a, "r") is NotImplemented
    assert linear_algebra.qr(normal(40, 40)) is NotImplemented


@pytest.mark.parametrize("upper", [True, False])
def test_from_a_cholesky_factor(upper: bool) -> None:
    a, b = normal(4, 5, 5), normal(4, 5, 2)
    factor = torch.linalg.cholesky(a @ a.mT + torch.eye(5, dtype=DOUBLE), upper=upper)
    wanted = torch.cholesky_solve(b, factor, upper=upper)
    same(linear_algebra.cholesky_solve(b, factor, upper), wanted)
    wanted = torch.cholesky_inverse(factor, upper=upper)
    same(linear_algebra.cholesky_inverse(factor, upper), wanted)
    assert linear_algebra.cholesky_inverse(normal(40, 40)) is NotImplemented


def test_matrix_exponential() -> None:
    for scale in (0.01, 1.0, 20.0):
        a = normal(3, 4, 4) * scale
        same(linear_algebra.matrix_exponential(a), torch.matrix_exp(a), 1e-11)


def test_a_matrix_that_needs_pivots() -> None:
    a = torch.tensor([[0.0, 2, 1], [1, 0, 0], [3, 1, 0]], dtype=DOUBLE)
    same(linear_algebra.inverse(a)[0], torch.linalg.inv(a))
    p, lower, upper = linear_algebra.lu(a)
    for found, expected in zip((p, lower, upper), torch.linalg.lu(a), strict=True):
        same(found, expected)
    factored, order, _ = linear_algebra.factors(a)
    same(
        linear_algebra.lu_solve(factored, order, normal(3, 2)), torch.linalg.solve(a, normal(3, 2))
    )
    assert linear_algebra.factors(normal(3, 2)) is NotImplemented
    many, side = normal(4, 3, 3), normal(3, 1)
    same(linear_algebra.solve(many, side)[0], torch.linalg.solve(many, side))
    same(linear_algebra.solve(a, normal(4, 3, 1))[0], torch.linalg.solve(a, normal(4, 3, 1)))
    same(linear_algebra.determinant(a)[0], torch.linalg.det(a))
    assert linear_algebra.solve(normal(2, 40, 40), normal(2, 40)) is NotImplemented


def test_bilinear() -> None:
    x, y, weight = normal(5, 3), normal(5, 4), normal(2, 3, 4)
    given = (x, weight, y, [1, 3], [0], [1, 2], [2, 3])
    same(linear_algebra.trilinear(*given), functional.bilinear(x, y, weight))


def test_reductions() -> None:
    x = normal(4, 5)
    for found, expected in zip(reductions.median(x, 1), torch.median(x, 1), strict=True):
        assert torch.equal(found, expected)
    same(reductions.product(x, 1), x.prod(1))
    same(reductions.vector_norm(x, 3, [1]), torch.linalg.vector_norm(x, 3, 1))
    same(reductions.cumulative_product(x, 1), x.cumprod(1))
    edges = torch.tensor([-1.0, 0, 0, 1], dtype=DOUBLE)
    values = torch.cat([x.flatten(), edges])
    for right in (False, True):
        found = reductions.search_sorted(edges, values, right=right)
        assert torch.equal(found, torch.searchsorted(edges, values, right=right))
        assert torch.equal(reductions.bucketize(values, edges, right=right), found)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_distances(p: float) -> None:
    x, weight = normal(4, 5), normal(4, 7)
    other = torch.cat([normal(6, 5), x[:1]])  # two points coincide
    leaf = x.clone().requires_grad_(True)
    expected = torch.cdist(leaf, other, p, compute_mode="donot_use_mm_for_euclid_dist")
    found = reductions.distances(x, other, p)
    same(found, expected.detach())
    (wanted,) = torch.autograd.grad((expected * weight).sum(), leaf)
    same(reductions.distances_backward(weight, x, other, p, found), wanted)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_running_extremes(size: int) -> None:
    x = (normal(3, size, 2) * 2).round()  # which has equal numbers
    for name in ("cummax", "cummin"):
        rule, operator = RULES[getattr(aten, name).default], getattr(torch, name)
        for dim in (0, 1, -1):
            for mine, theirs in zip(rule(x, dim), operator(x, dim), strict=True):
                assert torch.equal(mine, theirs)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_running_log_sum(size: int) -> None:
    x = normal(3, size, 2) * 30
    x[0, :2] = -math.inf
    for dim in (0, 1, -1):
        found, expected = reductions.running_log_sum(x, dim), torch.logcumsumexp(x, dim)
        assert torch.equal(found.isinf(), expected.isinf())
        same(found, expected)


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(affine: bool) -> None:
    x, weight, bias = normal(7, 2, 3, 4) + 5, normal(3, 4), normal(3, 4)
    given = (x, [3, 4], *((weight, bias) if affine else (None, None)), 1e-5)
    for found, expected in zip(
        reductions.layer_norm(*given), aten.native_layer_norm(*given), strict=True
    ):
        same(found, expected)
    single = (x.float(), [3, 4], None, None, 1e-5)  # which the runtime has an operator for
    assert reductions.layer_norm(*single) is NotImplemented


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine: bool, train: bool) -> None:
    """Instance norms are of this kind, in train mode for ever."""
    x, running = normal(4, 3, 5) + 2, (normal(3), normal(3).exp())
    weight, bias = (normal(3) + 1, normal(3)) if affine else (None, None)
    wanted = aten.native_batch_norm(x, weight, bias, *running, train, 0.0, 1e-5)
    rule = RULES[aten.native_batch_norm.default]
    same(rule(x, weight, bias, *running, train, 0.0, 1e-5)[0], wanted[0])
    given = (x.cos(), x, weight, *running, *wanted[1:], train, 1e-5, [True] * 3)
    expected = aten.native_batch_norm_backward(*given)
    for mine, theirs in zip(reductions.batch_norm_backward(*given), expected, strict=True):
        same(mine, theirs)
    single = [each.float() if isinstance(each, Tensor) else each for each in given]
    assert reductions.batch_norm_backward(*single) is NotImplemented


def test_group_norm() -> None:
    x, weight, bias = normal(7, 4, 6) + 2, normal(4) + 1, normal(4)
    sizes = (7, 4, 6, 2)
    wanted = aten.native_group_norm(x, weight, bias, *sizes, 1e-5)
    found = RULES[aten.native_group_norm.default](x, weight, bias, *sizes, 1e-5)
    for mine, theirs in zip(found, wanted, strict=True):
        same(mine, theirs)
    given = (x.cos(), x, *wanted[1:], weight, *sizes, [True] * 3)
    expected = aten.native_group_norm_backward(*given)
    found = RULES[aten.native_group_norm_backward.default](*given)
    for mine, theirs in zip(found, expected, strict=True):
        same(mine, theirs)


def test_numbers_of_operators_in_float64() -> None:
    x, y, z = normal(4, 5), normal(5, 4).T, normal(4, 5).exp()
    mask = x > 0
    calls = [
        (aten.add.Tensor, (x, y), {"alpha": 0.1}),
        (aten.sub.Tensor, (x, y), {"alpha": 0.1}),
        (aten.rsub.Scalar, (x, 0.1), {}),
        (aten.addcmul.default, (x, y, z), {"value": 0.1}),
        (aten.addcdiv.default, (x, y, z), {"value": 0.1}),
        (aten.masked_fill.Scalar, (x, mask, 0.1), {}),
        (aten.xlogy.Scalar_Self, (0.3, z), {}),
        (aten.threshold.default, (x, 0.1, 0.2), {}),
        (aten.celu.default, (x, 0.3), {}),
        (aten.hardtanh_backward.default, (y, x, -0.3, 0.7), {}),
        (aten.hardsigmoid_backward.default, (y, x * 4), {}),
    ]
    assert {call[0] for call in calls} == set(scalars.RULES)
    for operator, given, options in calls:
        same(scalars.RULES[operator](*given, **options), operator(*given, **options))
        single = [each.float() if each is x or each is z else each for each in given]
        if not isinstance(given[0], float) and operator.name().split("_")[-1] != "backward":
            assert scalars.RULES[operator](*single, **options) is NotImplemented


def test_a_number_may_come_first() -> None:
    """As in PyTorch's own form of ``logit``."""
    x = normal(4, 5)
    assert scalars.subtract(1, x) is NotImplemented
    same(scalars.subtract(0.1, x, alpha=0.3), 0.1 - x * 0.3)


def test_the_numbers_are_not_rounded_in_the_graph(tmp_path: Path) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        far = torch.add(0.1 - x, x, alpha=0.3).masked_fill(x > 0.7, 0.2)
        far = far + torch.logit(x.sigmoid() * 0.7)
        for change in (aten.mul_, aten.add_, aten.sub_, aten.div_):  # as PyTorch's own formulas
            far = change.Scalar(far.clone(), 0.3)
        far = far.clamp(-0.1, 5) + torch.where(x > 0, 1, 0.1)
        return (
            torch.lerp(far, x, 0.3) + functional.celu(x, 0.3) + functional.threshold(x, 0, 0.1),
        )

    x = normal(8, 3)
    export(function, [x], ["x"], ["y"], tmp_path / "y.onnx")
    found = GraphRunner(tmp_path / "y.onnx")({"x": x.numpy()})["y"]
    same(torch.from_numpy(found), function(x)[0], 1e-15)


NEAR = torch.linspace(-6, 6, 4001, dtype=DOUBLE)
UNIT = NEAR / 6.001
POSITIVE = NEAR + 6.01


@pytest.mark.parametrize(
    ("name", "points", "tolerance"),
    [
        *(
            (name, NEAR, 1e-13)
            for name in ("erf", "erfc", "atan", "sinh", "cosh", "asinh", "expm1")
        ),
        *((name, UNIT, 1e-12) for name in ("asin", "acos", "atanh")),
        *((name, POSITIVE, 1e-12) for name in ("log1p", "lgamma", "digamma")),
        ("acosh", POSITIVE + 1, 1e-13),
        ("lgamma", NEAR + 0.0003, 1e-11),
    ],
)
def test_special_functions_in_float64(name: str, points: Tensor, tolerance: float) -> None:
    rule: Callable[[Tensor], Tensor] = getattr(special, name)
    same(rule(points), getattr(torch, name)(points), tolerance)


def test_the_normal_distribution() -> None:
    tails = torch.logspace(-300, -1, 300, dtype=DOUBLE)
    for chances in (UNIT.abs(), tails, 1 - tails[::9], torch.tensor([0.0, 0.5, 1], dtype=DOUBLE)):
        same(special.ndtri(chances), torch.special.ndtri(chances), 1e-14)
        same(special.erfinv(1 - chances), torch.erfinv(1 - chances), 1e-13)
    for scale in (1, 5):
        same(special.log_ndtr(NEAR * scale), torch.special.log_ndtr(NEAR * scale), 1e-13)
    same(special.erfcx(NEAR), torch.special.erfcx(NEAR), 1e-14)
    same(special.erfcx(POSITIVE * 100), torch.special.erfcx(POSITIVE * 100), 1e-14)
    single = NEAR.float()
    same(special.log_ndtr(single), torch.special.log_ndtr(single), 1e-6)
    same(special.erfinv(single / 6.1), torch.erfinv(single / 6.1), 1e-6)


def test_signs_and_hypotenuses() -> None:
    zeros = torch.tensor([0.0, -0.0, 3e200, -1e-200], dtype=DOUBLE)
    x, y = torch.cat([NEAR, zeros]), torch.cat([NEAR.roll(5), zeros.flip(0)])
    assert torch.equal(special.signbit(x), torch.signbit(x))
    assert torch.equal(special.copysign(x, y), torch.copysign(x, y))
    same(special.hypot(NEAR, NEAR.roll(5)), torch.hypot(NEAR, NEAR.roll(5)), 1e-15)
    same(special.hypot(zeros, zeros), torch.hypot(zeros, zeros), 1e-15)


def test_a_random_slope_is_its_mean_when_not_training() -> None:
    x = NEAR.clone().requires_grad_(True)
    y = functional.rrelu(x, 0.1, 0.4)
    y.sum().backward()
    same(special.rrelu(NEAR, NEAR, 0.1, 0.4), y.detach())
    same(special.rrelu(NEAR, NEAR), functional.rrelu(NEAR))
    given = (torch.ones_like(NEAR), NEAR, NEAR, 0.1, 0.4)
    same(special.rrelu_backward(*given, False, False), x.grad)
    assert special.rrelu(NEAR, NEAR, 0.1, 0.4, True) is NotImplemented
    assert special.rrelu_backward(*given, True, False) is NotImplemented


def test_what_is_zero_everywhere_has_a_tensor() -> None:
    """Second derivatives of |x|: PyTorch has a tensor without storage for them."""
    found = RULES[aten._efficientzerotensor.default]([2, 3], dtype=DOUBLE, layout=torch.strided)
    assert torch.equal(found, torch.zeros(2, 3, dtype=DOUBLE))


def test_other_special_functions() -> None:
    same(special.atan2(UNIT.roll(7), NEAR), torch.atan2(UNIT.roll(7), NEAR))
    same(special.softplus(NEAR * 9, 2.0), functional.softplus(NEAR * 9, 2.0))
    for how in ("none", "tanh"):
        same(special.gelu(NEAR, approximate=how), functional.gelu(NEAR, approximate=how))
    for order in (1, 2, 3):
        expected = torch.special.polygamma(order, POSITIVE)
        same(special.polygamma(order, POSITIVE), expected, 1e-9)
    same(special.polygamma(1, NEAR + 0.0003), torch.special.polygamma(1, NEAR + 0.0003), 1e-9)
    assert special.polygamma(2, -POSITIVE).isnan().all()
    assert special.polygamma(4, POSITIVE) is NotImplemented
    same(special.mvlgamma(POSITIVE + 1, 3), torch.mvlgamma(POSITIVE + 1, 3))
    assert RULES[aten.erf.default](torch.ones(1)) is NotImplemented
