"""Small dense linear algebra, unrolled: ONNX has none. Matrices up to ``LARGEST`` a side.

Textbook algorithms, one step a column, each step on the whole batch: Cholesky, LU with partial
pivoting, substitution (Golub and Van Loan, Matrix Computations, §4.2, §3.4, §3.1).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
LARGEST = 32


def cholesky(
    a: Tensor, *, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    """L with L Lᵀ = a [..., k, k], lower (or Lᵀ), and the number of its error, 0."""
    size = a.shape[-1]
    if size > LARGEST or a.is_complex():
        return NotImplemented
    columns: list[Tensor] = []  # of L, each [..., k]
    index = torch.arange(size)
    rest = a
    for j in range(size):
        pivot = rest[..., j : j + 1, j].sqrt()
        # Above the diagonal is zero, whatever rounding left there.
        column = torch.where(index >= j, rest[..., j] / pivot, 0.0)
        rest = rest - column.unsqueeze(-1) * column.unsqueeze(-2)
        columns.append(column)
    lower = torch.stack(columns, -1)
    return (lower.mT if upper else lower), _no_error(a)


def solve_triangular(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """x with a x = b (or x a = b), by substitution: a [..., k, k], b [..., k, m]."""
    if not left:
        transposed = solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular)
        return transposed if transposed is NotImplemented else transposed.mT
    size = a.shape[-1]
    if size > LARGEST:
        return NotImplemented
    rows: dict[int, Tensor] = {}
    rest = b
    for i in reversed(range(size)) if upper else range(size):
        row = rest[..., i : i + 1, :]
        rows[i] = row if unitriangular else row / a[..., i : i + 1, i : i + 1]
        # A step for each column: few operators, whatever the size.
        rest = rest - a[..., :, i : i + 1] * rows[i]
    return torch.cat([rows[i] for i in range(size)], -2)


def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """x with a x = b, from a's Cholesky factor, lower or upper."""
    if not _small(factor):
        return NotImplemented
    lower = factor.mT if upper else factor
    middle = solve_triangular(lower, b, upper=False)
    return solve_triangular(lower.mT, middle, upper=True)


def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """a⁻¹ from a's Cholesky factor."""
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    return cholesky_solve(unit, factor, upper)


def qr(a: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """q r = a [..., m, n] by Householder's reflections, with LAPACK's signs (dgeqrf, dlarfg).

    (Golub and Van Loan, §5.1, §5.2.) ``mode`` is reduced or complete.
    """
    rows, columns = a.shape[-2:]
    if max(rows, columns) > LARGEST or a.is_complex() or mode == "r":
        return NotImplemented
    index = torch.arange(rows)
    unit = torch.eye(rows, dtype=a.dtype).expand(*a.shape[:-2], rows, rows)
    both = torch.cat([a, unit], -1)
    for j in range(min(rows - 1, columns)):
        column = torch.where(index >= j, both[..., j], 0.0)
        beyond = torch.where(index > j, column, 0.0).square().sum(-1, keepdim=True)
        pivot = both[..., j, j : j + 1]
        size = (pivot.square() + beyond).sqrt()
        mirror = column + torch.where(index == j, torch.where(pivot < 0, -size, size), 0.0)
        # A column that is zero below the diagonal is left as it is.
        square = torch.where(beyond == 0, 1.0, mirror.square().sum(-1, keepdim=True))
        scaled = torch.where(beyond == 0, 0.0, mirror * 2 / square)
        both = both - scaled.unsqueeze(-1) * torch.matmul(mirror.unsqueeze(-2), both)
    kept = rows if mode == "complete" else min(rows, columns)
    r = torch.where(index.unsqueeze(-1) <= torch.arange(columns), both[..., :columns], 0.0)
    return both[..., :kept, columns:].mT, r[..., :kept, :]


def factorise(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LU with partial pivoting: a [..., k, k] → L and U in one matrix, row order, sign of it.

    Row i of L U is row order[i] of a. The order is what the rules below hand one another in the
    place of LAPACK's pivots.
    """
    size = a.shape[-1]
    index = torch.arange(size)
    order = index.expand(a.shape[:-1])
    sign = torch.ones_like(a[..., 0, 0])
    for j in range(size):
        candidates = torch.where(index >= j, a[..., j].abs(), -1.0)
        pivot = candidates.argmax(-1, keepdim=True)  # [..., 1]
        swap = torch.where(index == j, pivot, torch.where(index == pivot, j, index))
        sign = torch.where(pivot.squeeze(-1) == j, sign, -sign)
        order = order.gather(-1, swap)
        a = a.gather(-2, swap.unsqueeze(-1).expand_as(a))
        row = a[..., j, :]
        factor = torch.where(index > j, a[..., j] / row[..., j : j + 1], 0.0)
        eliminated = a - factor.unsqueeze(-1) * torch.where(index > j, row, 0.0).unsqueeze(-2)
        # Column j keeps U above and on the diagonal, L below it.
        column = torch.where(index > j, factor, a[..., j])
        a = torch.where(index == j, column.unsqueeze(-1), eliminated)
    return a, order, sign


def lu_solve(
    lu: Tensor, order: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """x with a x = b (adjoint: aᵀ x = b; not left: x a = b) from a's factors."""
    if lu.shape[-1] > LARGEST or order.dtype != torch.int64:
        return NotImplemented
    if not left:
        return lu_solve(lu, order, b.mT, adjoint=not adjoint).mT
    lead = torch.broadcast_shapes(order.shape[:-1], b.shape[:-2])
    b = b.expand(*lead, *b.shape[-2:])  # one right-hand side may be that of many matrices
    if adjoint:
        middle = solve_triangular(lu.mT, b, upper=False)
        swapped = solve_triangular(lu.mT, middle, upper=True, unitriangular=True)
        place = order.argsort(-1)
        return swapped.gather(-2, place.unsqueeze(-1).expand_as(swapped))
    permuted = b.gather(-2, order.unsqueeze(-1).expand_as(b))
    middle = solve_triangular(lu, permuted, upper=False, unitriangular=True)
    return solve_triangular(lu, middle, upper=True)


def factors(
    a: Tensor, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """L and U in one matrix, the row order, no error; of square matrices."""
    if not pivot or not _small(a) or a.shape[-2] != a.shape[-1]:
        return NotImplemented
    lu, order, _ = factorise(a)
    return lu, order, _no_error(a)


def unpacked(
    lu: Tensor, order: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """P, L and U with P L U = a, from a's factors."""
    if not _small(lu) or lu.shape[-2] != lu.shape[-1] or order.dtype != torch.int64:
        return NotImplemented
    column = torch.arange(lu.shape[-1])
    row = column.unsqueeze(-1)
    unit = torch.eye(lu.shape[-1], dtype=lu.dtype)
    lower = torch.where(row > column, lu, unit)
    upper = torch.where(row <= column, lu, 0.0)
    return (order.unsqueeze(-2) == row).to(lu.dtype), lower, upper


def lu(a: Tensor, *, pivot: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a itself."""
    found = factors(a, pivot=pivot)
    return found if found is NotImplemented else unpacked(found[0], found[1])


def trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    summed: Sequence[int],
    _unroll: int = 1,
) -> Tensor:
    """Σ first · second · third, each with new axes at its places; that of ``nn.Bilinear``."""
    spread = []
    for tensor, axes in ((first, expand1), (second, expand2), (third, expand3)):
        for axis in sorted(axes):
            tensor = tensor.unsqueeze(axis)  # noqa: PLW2901
        spread.append(tensor)
    product = spread[0] * spread[1] * spread[2]
    return product.sum(list(summed)) if summed else product


def solve(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a x = b → x, and the factors for its gradient."""
    if not _small(a):
        return NotImplemented
    vector = b.dim() == 1 or (a.dim() - 1 == b.dim() and b.shape == a.shape[:-1])
    lu, order, _ = factorise(a)
    x = lu_solve(lu, order, b.unsqueeze(-1) if vector else b, left=left)
    return (x.squeeze(-1) if vector else x), lu, order, _no_error(a)


def inverse(a: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """a⁻¹, as the solution for the unit matrix."""
    if not _small(a):
        return NotImplemented
    lu, order, _ = factorise(a)
    unit = torch.eye(a.shape[-1], dtype=a.dtype).expand_as(a)
    return lu_solve(lu, order, unit), _no_error(a)


def determinant(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product of U's diagonal, with the sign of the row order."""
    if not _small(a):
        return NotImplemented
    lu, order, sign = factorise(a)
    result = sign
    for i in range(a.shape[-1]):
        result = result * lu[..., i, i]
    return result, lu, order


def log_determinant(a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sign and logarithm of the absolute value of the determinant."""
    if not _small(a):
        return NotImplemented
    lu, order, sign = factorise(a)
    diagonal = torch.stack([lu[..., i, i] for i in range(a.shape[-1])], -1)
    for i in range(a.shape[-1]):
        sign = sign * lu[..., i, i].sign()
    return sign, diagonal.abs().log().sum(-1), lu, order


TAYLOR, SQUARINGS = 16, 16


def matrix_exponential(a: Tensor) -> Tensor:
    """exp a by scaling and squaring: a Taylor polynomial of a/2ˢ, whose norm is at most ½, squared.

    s follows the norm, up to 16: the result is right for norms up to 2¹⁵.
    """
    if not _small(a):
        return NotImplemented
    norm = a.abs().sum(-1).amax(-1)
    squarings = (norm * 2).clamp(min=1.0).log2().ceil()
    scaled = a / (2**squarings).unsqueeze(-1).unsqueeze(-1)
    unit = torch.eye(a.shape[-1], dtype=a.dtype).expand_as(a)
    result = unit
    for term in range(TAYLOR, 0, -1):
        result = unit + torch.matmul(scaled, result) / float(term)
    for step in range(SQUARINGS):
        again = (squarings > step).unsqueeze(-1).unsqueeze(-1)
        result = torch.where(again, torch.matmul(result, result), result)
    return result


def _small(a: Tensor) -> bool:
    return a.shape[-1] <= LARGEST and not a.is_complex()


def _no_error(a: Tensor) -> Tensor:
    return torch.zeros(a.shape[:-2], dtype=torch.int32)


RULES: dict[Any, Callable[..., Any]] = {
    aten.linalg_cholesky_ex.default: cholesky,
    aten.linalg_solve_triangular.default: solve_triangular,
    aten.cholesky_solve.default: cholesky_solve,
    aten.cholesky_inverse.default: cholesky_inverse,
    aten.linalg_qr.default: qr,
    aten._linalg_solve_ex.default: solve,
    aten.linalg_lu_solve.default: lu_solve,
    aten.linalg_lu_factor_ex.default: factors,
    aten.lu_unpack.default: unpacked,
    aten.linalg_lu.default: lu,
    aten._trilinear.default: trilinear,
    aten.linalg_inv_ex.default: inverse,
    aten._linalg_det.default: determinant,
    aten._linalg_slogdet.default: log_determinant,
    aten.linalg_matrix_exp.default: matrix_exponential,
}
