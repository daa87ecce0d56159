"""When a graph agrees with PyTorch: the formula, and how loose a tolerance may be."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.manifest import Agreement, Precision

Array = NDArray[Any]

# The largest tolerances that are accepted, relative to the largest magnitude of the reference. A
# looser one proves nothing.
LOOSEST = {"float64": 1e-6, "float32": 1e-2, "int8": 0.1}
ROUNDING = 1.001  # publishers take the magnitude from unrounded outputs


def disagreement(found: Array, reference: Array, absolute: float, relative: float) -> float | None:
    """The largest difference where an element of ``found`` disagrees; None where all agree.

    An element agrees if |found − reference| ≤ absolute + relative·|reference|; NaN never agrees.
    """
    expected = reference.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - expected)
    if np.all(difference <= absolute + relative * np.abs(expected)):
        return None
    return float(np.max(difference)) if difference.size else 0.0


def too_loose(agreement: Agreement, precision: Precision, references: list[Array]) -> str | None:
    """Why the tolerances of a graph are too loose for these reference outputs; None if they aren't.

    They may be ``LOOSEST`` parts of the largest magnitude among all outputs (of 1 where all are 0).
    """
    exact = all(reference.dtype == np.float64 for reference in references)
    kind = "int8" if precision == "int8" else "float64" if exact else "float32"
    limit = LOOSEST[kind] * ROUNDING
    largest = max((float(np.max(np.abs(r), initial=0)) for r in references), default=0.0) or 1.0
    if not np.isfinite(largest):
        return "its samples have outputs that are not finite"
    if agreement.relative_tolerance > limit or agreement.absolute_tolerance > limit * largest:
        return (
            f"its tolerance ({agreement.absolute_tolerance:.3g} and "
            f"{agreement.relative_tolerance:.3g} of the value) proves nothing: for {kind} at most "
            f"{LOOSEST[kind]:g} of the largest value, {largest:.3g}, is accepted"
        )
    return None
