"""Operators written out in those that ONNX and its runtime know, one family a module.

``RULES`` maps an ATen operator to a function of the same arguments. A rule that does not apply (a
matrix too large to unroll, float32 where the runtime has a kernel) returns ``NotImplemented``: the
operator then stays as it is.
"""

from collections.abc import Callable
from typing import Any

from training.publish.rules import (
    convolution,
    linear_algebra,
    pooling,
    reductions,
    sampling,
    scalars,
    special,
)

RULES: dict[Any, Callable[..., Any]] = {
    **convolution.RULES,
    **pooling.RULES,
    **linear_algebra.RULES,
    **reductions.RULES,
    **sampling.RULES,
    **scalars.RULES,
    **special.RULES,
}
