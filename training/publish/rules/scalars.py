"""Operators that take Python numbers, in float64: the exporter would round the numbers to float32.

Written in operators whose numbers ``record`` turns into tensors of float64.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
SIXTH = float(torch.tensor(1 / 6, dtype=torch.float32))


def add(x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    """x + alpha y."""
    return NotImplemented if _exact(x, alpha) else x + y * alpha


def subtract(x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    """x − alpha y."""
    return NotImplemented if _exact(x, alpha) else x - y * alpha


def subtract_from(x: Tensor, number: float, alpha: float = 1) -> Tensor:
    """number − alpha x; ``number - x`` would be this operator again."""
    return NotImplemented if _exact(x, number, alpha) else -(x * alpha - number)


def add_product(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    """x + value · first · second."""
    return NotImplemented if _exact(x, value) else x + first * second * value


def add_quotient(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    """x + value · first / second."""
    return NotImplemented if _exact(x, value) else x + first / second * value


def fill_where(x: Tensor, mask: Tensor, number: float) -> Tensor:
    """x, and the number where the mask is true."""
    return NotImplemented if _exact(x, number) else torch.where(mask, number, x)


def number_times_log(number: float, x: Tensor) -> Tensor:
    """number · log x."""
    return NotImplemented if _exact(x, number) else torch.log(x) * number


def threshold(x: Tensor, limit: float, number: float) -> Tensor:
    """x above the limit, the number elsewhere."""
    return NotImplemented if _exact(x, limit, number) else torch.where(x > limit, x, number)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha (exp(x / alpha) − 1) below."""
    if _exact(x, alpha):
        return NotImplemented
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0.0) / alpha) * alpha)


def hardtanh_backward(gradient: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """The gradient where x is between its bounds."""
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where((x > low) & (x < high), gradient, 0.0)


def hardsigmoid_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """A sixth of the gradient between −3 and 3: in float64, too, PyTorch's sixth is a float32."""
    if x.dtype != torch.float64:
        return NotImplemented
    return torch.where((x > -3.0) & (x < 3.0), gradient * SIXTH, 0.0)


def _exact(x: Any, *numbers: float) -> bool:
    """Is nothing lost if the numbers are rounded to float32? ``x`` may be a number itself."""
    held = all(type(number) is not float or _held(number) for number in numbers)
    return held or (isinstance(x, Tensor) and x.dtype != torch.float64)


def _held(number: float) -> bool:
    return float(torch.tensor(number, dtype=torch.float32)) == number


RULES: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: add,
    aten.sub.Tensor: subtract,
    aten.rsub.Scalar: subtract_from,
    aten.addcmul.default: add_product,
    aten.addcdiv.default: add_quotient,
    aten.masked_fill.Scalar: fill_where,
    aten.xlogy.Scalar_Self: number_times_log,
    aten.threshold.default: threshold,
    aten.celu.default: celu,
    aten.hardtanh_backward.default: hardtanh_backward,
    aten.hardsigmoid_backward.default: hardsigmoid_backward,
}
