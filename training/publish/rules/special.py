"""Elementwise functions for which ONNX Runtime has no float64 kernel, or ONNX no operator.

Composed of exp, log, sqrt, sin, cos, tanh and arithmetic, which have one, to a few units in the
last place. In float32 the kernels that are there serve, so these rules leave it alone.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from training.publish.rules import coefficients

aten = torch.ops.aten


def in_float64(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule for float64 tensors only."""

    @wraps(rule)
    def chosen(x: Tensor, *arguments: Any, **options: Any) -> Any:
        return rule(x, *arguments, **options) if x.dtype == torch.float64 else NotImplemented

    return chosen


def polynomial(x: Tensor, terms: Sequence[float]) -> Tensor:
    """terms[0] + terms[1] x + terms[2] x² + …, by Horner's rule."""
    result = torch.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        result = result * x + term
    return result


def log1p(x: Tensor) -> Tensor:
    """log(1 + x) without losing the digits of a small x (Kahan's correction)."""
    u = 1 + x
    change = u - 1
    small = change == 0
    # Where u is infinite, so is the result.
    corrected = u.log() * (x / torch.where(small, 1.0, change))
    return torch.where(small, x, torch.where(u.isinf(), u, corrected))


def expm1(x: Tensor) -> Tensor:
    """exp(x) − 1 = tanh(x/2) · (exp(x) + 1)."""
    return (x * 0.5).tanh() * (x.exp() + 1)


def cosh(x: Tensor) -> Tensor:
    """(eˣ + e⁻ˣ)/2, nothing cancels."""
    return (x.exp() + (-x).exp()) * 0.5


def sinh(x: Tensor) -> Tensor:
    """tanh · cosh."""
    return x.tanh() * cosh(x)


def asinh(x: Tensor) -> Tensor:
    """sign(x) · log(|x| + √(x² + 1))."""
    size = x.abs()
    square = size * size
    return x.sign() * log1p(size + square / (1 + (square + 1).sqrt()))


def acosh(x: Tensor) -> Tensor:
    """log(x + √(x² − 1)) in t = x − 1."""
    above = x - 1
    return log1p(above + (above * 2 + above * above).sqrt())


def atanh(x: Tensor) -> Tensor:
    """½ log((1 + x)/(1 − x))."""
    return log1p(x * 2 / (1 - x)) * 0.5


def atan(x: Tensor) -> Tensor:
    """fdlibm's: reduced to |t| < 7/16 by atan x = atan c + atan((x − c)/(1 + cx)), a polynomial."""
    size = x.abs()
    reduced, offset = size, torch.zeros_like(size)
    for start, centre in ((7 / 16, 0.5), (11 / 16, 1.0), (19 / 16, 1.5)):
        beyond = size >= start
        reduced = torch.where(beyond, (size - centre) / (1 + size * centre), reduced)
        offset = torch.where(beyond, math.atan(centre), offset)
    far = size >= 39 / 16
    reduced = torch.where(far, -1 / torch.where(far, size, 1.0), reduced)
    offset = torch.where(far, math.pi / 2, offset)
    square = reduced * reduced
    found = offset + (reduced - reduced * square * polynomial(square, coefficients.ATAN))
    return torch.where(x < 0, -found, found)


def asin(x: Tensor) -> Tensor:
    """atan(x/√(1 − x²))."""
    return atan(x / ((1 - x) * (1 + x)).sqrt())


def acos(x: Tensor) -> Tensor:
    """2 atan √((1 − x)/(1 + x)), which keeps its digits near 1."""
    return atan(((1 - x) / (1 + x)).sqrt()) * 2


def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of (x, y), in (−π, π]."""
    origin = (x == 0) & (y == 0)
    steep = atan(y / torch.where(origin, 1.0, x))
    turned = torch.where(y < 0, steep - math.pi, steep + math.pi)
    return torch.where(x < 0, turned, steep)


def rrelu(
    x: Tensor,
    _noise: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    _: Any = None,
) -> Tensor:
    """The randomised leaky ReLU, which has its mean slope when not training."""
    if training:
        return NotImplemented
    return torch.where(x > 0, x, x * ((lower + upper) / 2))


def rrelu_backward(
    gradient: Tensor,
    x: Tensor,
    _noise: Tensor,
    lower: float,
    upper: float,
    training: bool,
    _is_result: bool,
) -> Tensor:
    """Its derivative, by x or by the result, which has the same sign."""
    if training:
        return NotImplemented
    return torch.where(x > 0, gradient, gradient * ((lower + upper) / 2))


def zeros(size: Sequence[int], *, dtype: torch.dtype, **_: Any) -> Tensor:
    """What PyTorch has for derivatives that are 0 everywhere, without storage."""
    return torch.zeros(size, dtype=dtype)


def hypot(x: Tensor, y: Tensor) -> Tensor:
    """√(x² + y²), the larger taken out of the root: its square may be infinite."""
    large, small = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    scaled = small / torch.where(large == 0, 1.0, large)
    return large * (1 + scaled * scaled).sqrt()


def signbit(x: Tensor) -> Tensor:
    """Is x negative? −0 is as well."""
    return torch.where(x == 0, 1 / x, x) < 0


def copysign(x: Tensor, y: Tensor) -> Tensor:
    """|x| with the sign of y."""
    return torch.where(signbit(y), -x.abs(), x.abs())


def _tail_exponent(size: Tensor) -> Tensor:
    """log(x erfc(x)) + x² for x ≥ 1.25, by fdlibm's two rational functions of 1/x²."""
    inverse = 1 / (size * size)
    near = polynomial(inverse, coefficients.ERF_RA) / polynomial(inverse, coefficients.ERF_SA)
    far = polynomial(inverse, coefficients.ERF_RB) / polynomial(inverse, coefficients.ERF_SB)
    return torch.where(size < 1 / 0.35, near, far) - 0.5625


def _tail(size: Tensor) -> Tensor:
    """erfc(x) for x ≥ 1.25."""
    return (-size * size + _tail_exponent(size)).exp() / size


def _erf_parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """|x|, erf |x| below 0.84375, erf |x| − erx below 1.25, erfc |x| from there on."""
    size = x.abs()
    square = size * size
    low = size + size * (
        polynomial(square, coefficients.ERF_PP) / polynomial(square, coefficients.ERF_QQ)
    )
    shifted = size - 1
    middle = polynomial(shifted, coefficients.ERF_PA) / polynomial(shifted, coefficients.ERF_QA)
    return size, low, middle, _tail(size.clamp(1.25, 28.0))


def erf(x: Tensor) -> Tensor:
    """The error function, fdlibm's s_erf.c."""
    size, low, middle, tail = _erf_parts(x)
    found = torch.where(
        size < 0.84375, low, torch.where(size < 1.25, coefficients.ERX + middle, 1 - tail)
    )
    return torch.where(x < 0, -found, found)


def erfc(x: Tensor) -> Tensor:
    """1 − erf x, with its digits kept where that is small."""
    size, low, middle, tail = _erf_parts(x)
    positive = torch.where(
        size < 0.84375, 1 - low, torch.where(size < 1.25, 1 - coefficients.ERX - middle, tail)
    )
    return torch.where(x < 0, 2 - positive, positive)


def erfcx(x: Tensor) -> Tensor:
    """exp(x²) erfc x, which stays a number where erfc x is none any more."""
    far = x >= 1.25
    large = torch.where(far, x, 1.25)
    near = x.clamp(max=1.25)
    return torch.where(far, _tail_exponent(large).exp() / large, (near * near).exp() * erfc(near))


def log_ndtr(x: Tensor) -> Tensor:
    """log Φ(x), with its digits kept on both sides."""
    scaled = x * math.sqrt(0.5)
    left = scaled < -0.5
    low = scaled.clamp(max=-0.5)
    high = scaled.clamp(min=-0.5)
    return torch.where(left, (erfcx(-low) * 0.5).log() - low * low, log1p(erfc(high) * -0.5))


def _quantile(centred: Tensor, rest: Tensor) -> Tensor:
    """Φ⁻¹(½ + q) of ``centred`` q, where ``rest`` is ½ − |q|, with as many digits as it has."""
    middle = 0.180625 - centred * centred
    inside = centred * (
        polynomial(middle, coefficients.QUANTILE_A) / polynomial(middle, coefficients.QUANTILE_B)
    )
    end = rest == 0
    root = (-torch.where(end, 0.5, rest).log()).sqrt()
    near, far = root - 1.6, root - 5
    outside = torch.where(
        root <= 5,
        polynomial(near, coefficients.QUANTILE_C) / polynomial(near, coefficients.QUANTILE_D),
        polynomial(far, coefficients.QUANTILE_E) / polynomial(far, coefficients.QUANTILE_F),
    )
    outside = torch.where(end, math.inf, outside)
    signed = torch.where(centred < 0, -outside, outside)
    return torch.where(centred.abs() <= 0.425, inside, signed)


def ndtri(p: Tensor) -> Tensor:
    """The normal distribution's quantile, Φ⁻¹(p)."""
    return _quantile(p - 0.5, torch.minimum(p, 1 - p))


def erfinv(x: Tensor) -> Tensor:
    """The inverse of erf: Φ⁻¹((1 + x)/2)/√2."""
    return _quantile(x * 0.5, (1 - x.abs()) * 0.5) * math.sqrt(0.5)


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(βx))/β; x itself from the threshold on, as PyTorch has it."""
    scaled = x * float(beta)
    soft = (scaled.clamp(min=0) + log1p((-scaled.abs()).exp())) / float(beta)
    return torch.where(scaled > threshold, x, soft)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x Φ(x), or its approximation by tanh."""
    if approximate == "tanh":
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (1 + inner.tanh())
    return x * 0.5 * (1 + erf(x * math.sqrt(0.5)))


SHIFT = 8  # from here on the asymptotic series are exact to rounding


def _shifted(x: Tensor) -> tuple[Tensor, Tensor]:
    """x, or x + SHIFT where x is below SHIFT; and where it is below."""
    below = x < SHIFT
    return torch.where(below, x + SHIFT, x), below


def lgamma(x: Tensor) -> Tensor:
    """log |Γ(x)|: Stirling's series at x + 8; the reflection formula below ½."""
    if x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    reflected = x < 0.5
    point = torch.where(reflected, 1 - x, x)
    z, below = _shifted(point)
    inverse = 1 / z
    series = polynomial(inverse * inverse, coefficients.STIRLING) * inverse
    found = (z - 0.5) * z.log() - z + 0.5 * math.log(2 * math.pi) + series
    # The product, not the sum of the logarithms: one log instead of eight.
    start = torch.where(below, point, 1.0)
    steps = start
    for step in range(1, SHIFT):
        steps = steps * torch.where(below, start + step, 1.0)
    found = found - steps.log()
    sine = (torch.where(reflected, x, 0.5) * math.pi).sin().abs()
    return torch.where(reflected, math.log(math.pi) - sine.log() - found, found)


def mvlgamma(x: Tensor, dimensions: int) -> Tensor:
    """log Γ of several dimensions: Σ lgamma(x − j/2), and a constant."""
    shifts = torch.arange(dimensions) * -0.5
    constant = dimensions * (dimensions - 1) / 4 * math.log(math.pi)
    return torch.lgamma(x.unsqueeze(-1) + shifts.to(x.dtype)).sum(-1) + constant


def digamma(x: Tensor) -> Tensor:
    """The derivative of log Γ, likewise."""
    if x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    reflected = x < 0.5
    point = torch.where(reflected, 1 - x, x)
    z, below = _shifted(point)
    square = 1 / (z * z)
    found = z.log() - 0.5 / z - polynomial(square, coefficients.DIGAMMA) * square
    start = torch.where(below, point, 1.0)
    for step in range(SHIFT):
        found = found - torch.where(below, 1 / (start + step), 0.0)
    angle = torch.where(reflected, x, 0.5) * math.pi
    return torch.where(reflected, found - math.pi * angle.cos() / angle.sin(), found)


def polygamma(order: int, x: Tensor) -> Tensor:
    """The derivative of digamma of an order from 1 to 3; not a number at x ≤ 0 from 2 on.

    The asymptotic series at x + 8 (Abramowitz and Stegun, 6.4.11), the reflection formula below ½.
    """
    if not 1 <= order <= 3 or x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    reflected = x < 0.5 if order == 1 else torch.zeros_like(x, dtype=torch.bool)
    point = torch.where(reflected, 1 - x, x)
    z, below = _shifted(point)
    inverse = 1 / z
    terms = [
        number * math.prod(range(2 * place + 3, 2 * place + 2 + order))
        for place, number in enumerate(coefficients.BERNOULLI)
    ]
    square = inverse * inverse
    first = float(math.factorial(order - 1))
    found = first + inverse * (0.5 * order * first + polynomial(square, terms) * inverse)
    for _ in range(order):
        found = found * inverse
    start = torch.where(below, point, 1.0)
    for step in range(SHIFT):
        term = 1 / (start + float(step))
        power = term
        for _ in range(order):
            power = power * term
        found = found + torch.where(below, power * float(math.factorial(order)), 0.0)
    if order == 1:
        sine = (torch.where(reflected, x, 0.5) * math.pi).sin()
        return torch.where(reflected, (math.pi / sine) ** 2 - found, found)
    signed = found if order % 2 else -found
    return torch.where(x > 0, signed, math.nan)


# Written out by PyTorch itself; in float64 for want of a kernel.
_BY_PYTORCH = (
    aten.elu,
    aten.leaky_relu,
    aten.hardsigmoid,
    aten.hardswish,
    aten.mish,
    aten.log_sigmoid_forward,
    aten._prelu_kernel,
    aten.hardtanh,
    aten.softshrink,
    aten.hardshrink,
    aten.elu_backward,
    aten.gelu_backward,
    aten.softplus_backward,
    aten.leaky_relu_backward,
    aten.hardswish_backward,
    aten.mish_backward,
    aten.log_sigmoid_backward,
    aten._prelu_kernel_backward,
    aten.silu_backward,
    aten.native_group_norm,
    aten.native_group_norm_backward,
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.smooth_l1_loss,
    aten.smooth_l1_loss_backward,
    aten.huber_loss,
    aten.huber_loss_backward,
    aten.upsample_bilinear2d,
    aten.upsample_linear1d,
    aten.lerp,
    aten.logit,
    aten.sinc,
)

RULES: dict[Any, Callable[..., Any]] = {
    **{operator: in_float64(rule) for operator, rule in get_decompositions(_BY_PYTORCH).items()},
    aten.log1p.default: in_float64(log1p),
    aten.expm1.default: in_float64(expm1),
    aten.tan.default: in_float64(lambda x: x.sin() / x.cos()),
    aten.sinh.default: in_float64(sinh),
    aten.cosh.default: in_float64(cosh),
    aten.asinh.default: in_float64(asinh),
    aten.acosh.default: in_float64(acosh),
    aten.atanh.default: in_float64(atanh),
    aten.asin.default: in_float64(asin),
    aten.acos.default: in_float64(acos),
    aten.atan.default: in_float64(atan),
    aten.atan2.default: in_float64(atan2),
    aten._efficientzerotensor.default: zeros,
    aten.rrelu_with_noise.default: rrelu,
    aten.rrelu_with_noise_backward.default: rrelu_backward,
    aten.hypot.default: hypot,
    aten.signbit.default: signbit,
    aten.copysign.Tensor: copysign,
    aten.erf.default: in_float64(erf),
    aten.erfc.default: in_float64(erfc),
    aten.special_erfcx.default: erfcx,
    aten.special_log_ndtr.default: log_ndtr,
    aten.special_ndtri.default: ndtri,
    aten.erfinv.default: erfinv,
    aten.softplus.default: in_float64(softplus),
    aten.gelu.default: in_float64(gelu),
    aten.log2.default: in_float64(lambda x: x.log() * (1 / math.log(2))),
    aten.log10.default: in_float64(lambda x: x.log() * (1 / math.log(10))),
    aten.exp2.default: in_float64(lambda x: (x * math.log(2)).exp()),
    aten.lgamma.default: lgamma,
    aten.digamma.default: digamma,
    aten.polygamma.default: polygamma,
    aten.mvlgamma.default: mvlgamma,
}
