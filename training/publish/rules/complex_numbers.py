"""Complex numbers as pairs of real ones: ONNX Runtime has hardly an operator for them.

A recording with complex tensors is run again on pairs of a real and an imaginary part. Only the
Fourier transforms stay complex, between a ``view_as_complex`` and a ``view_as_real``, which is how
the exporter knows them.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
Part = Tensor | float
_MISSING = "No ONNX function found for <OpOverload(op='{}') of complex numbers"
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@dataclass(frozen=True)
class Pair:
    """real + i · imag, of one shape and type; or two numbers."""

    real: Part
    imag: Part


class OnPairs(fx.Interpreter):
    """Runs a recording with a ``Pair`` for every complex tensor.

    Raises NotImplementedError that names an operator for which there is no rule.
    """

    def __init__(self, recorded: fx.GraphModule) -> None:
        super().__init__(recorded)
        # Taken apart before the recording of this, which would otherwise write it down.
        self._constants = {
            node.target: Pair(value.real.clone(), value.imag.clone())
            for node in recorded.graph.nodes
            if node.op == "get_attr"
            and isinstance(value := self.fetch_attr(node.target), Tensor)
            and value.is_complex()
        }

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A constant of the recording."""
        found = self._constants.get(target)
        return super().get_attr(target, args, kwargs) if found is None else found

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An operator: by its rule if complex numbers go in or come out."""
        seen: list[bool] = []
        _changed((args, kwargs), lambda each: seen.append(isinstance(each, Pair | complex)))
        makes = target in _MAKE or kwargs.get("dtype") in REAL
        if not any(seen) and not makes:
            return super().call_function(target, args, kwargs)
        args = _changed(
            args, lambda each: Pair(each.real, each.imag) if isinstance(each, complex) else each
        )
        if target in RULES:
            return RULES[target](*args, **kwargs)
        if getattr(target, "overloadpacket", None) in _BY_PART:
            return _by_part(target, args, kwargs)
        raise NotImplementedError(_MISSING.format(target.overloadpacket))


def occur_in(recorded: fx.GraphModule) -> bool:
    """Is any tensor of the recording complex?"""
    values = (node.meta.get("val") for node in recorded.graph.nodes)
    return any(isinstance(value, Tensor) and value.is_complex() for value in values)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with every element of its lists, tuples and dictionaries changed."""
    if isinstance(value, list | tuple):
        return type(value)([_changed(each, change) for each in value])
    if isinstance(value, dict):
        return {key: _changed(each, change) for key, each in value.items()}
    return change(value)


def _pair(value: Pair | Part) -> Pair:
    if isinstance(value, Pair):
        return value
    return Pair(value, torch.zeros_like(value) if isinstance(value, Tensor) else 0.0)


def _by_part(target: Any, args: Any, kwargs: Any) -> Any:
    """Operators that do the same to both parts: views, sums, copies."""
    if kwargs.get("dtype") in REAL:
        kwargs = {**kwargs, "dtype": REAL[kwargs["dtype"]]}

    def real(each: Any) -> Any:
        return each.real if isinstance(each, Pair) else each

    def imag(each: Any) -> Any:
        if isinstance(each, Pair):
            return each.imag
        floating = isinstance(each, Tensor) and each.is_floating_point()
        return torch.zeros_like(each) if floating else each

    first = target(*_changed(args, real), **kwargs)
    second = target(*_changed(args, imag), **kwargs)
    if isinstance(first, Tensor):
        return Pair(first, second)
    return [Pair(a, b) for a, b in zip(first, second, strict=True)]


def _filled(size: Sequence[int], value: Pair | float, **options: Any) -> Pair:
    options["dtype"] = REAL[options["dtype"]] if options.get("dtype") in REAL else torch.float64
    filling: Any = _pair(value)  # of numbers
    return Pair(
        torch.full(size, filling.real, **options), torch.full(size, filling.imag, **options)
    )


def _to_copy(z: Pair | Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Pair | Tensor:
    pair = _pair(z)
    assert isinstance(pair.real, Tensor) and isinstance(pair.imag, Tensor)  # noqa: S101
    if dtype is not None and dtype not in REAL:
        return pair.real.to(dtype)
    kind = pair.real.dtype if dtype is None else REAL[dtype]
    return Pair(pair.real.to(kind, copy=True), pair.imag.to(kind, copy=True))


def _clone(z: Pair, **_: Any) -> Pair:
    if not isinstance(z.real, Tensor) or not isinstance(z.imag, Tensor):
        return z
    return Pair(z.real.clone(), z.imag.clone())


def _new_empty(z: Pair, size: Sequence[int], *_: Any, **__: Any) -> Pair:
    real = z.real
    assert isinstance(real, Tensor)  # noqa: S101 — numbers have no such method
    return Pair(real.new_zeros(size), real.new_zeros(size))


def _strided(z: Pair, size: Sequence[int], stride: Sequence[int], offset: int = 0) -> Pair:
    """A block of a contiguous tensor, which the derivatives of ``rfft`` and ``irfft`` take."""
    real = z.real
    assert isinstance(real, Tensor)  # noqa: S101 — numbers have no strides
    if real.dim() != len(size) or list(stride) != list(real.contiguous().stride()):
        raise NotImplementedError(_MISSING.format("aten.as_strided"))
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        start, offset = divmod(offset, step)
        z = _by_part(aten.slice.Tensor, (z, axis, start, start + length), {})
    return z


def _masked_fill(z: Any, mask: Tensor, value: float) -> Pair:
    filling = _pair(value)
    return Pair(torch.where(mask, filling.real, z.real), torch.where(mask, filling.imag, z.imag))


def _bilinear(product: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Pair]:
    """(a + bi)(c + di), for any kind of product."""

    def multiplied(z: Pair | Part, w: Pair | Part) -> Pair:
        if not isinstance(z, Pair):
            assert isinstance(w, Pair)  # noqa: S101 — one of them is
            return Pair(product(z, w.real), product(z, w.imag))
        if not isinstance(w, Pair):
            return Pair(product(z.real, w), product(z.imag, w))
        return Pair(
            product(z.real, w.real) - product(z.imag, w.imag),
            product(z.real, w.imag) + product(z.imag, w.real),
        )

    return multiplied


_times = _bilinear(operator.mul)


def _add(z: Pair | Part, w: Pair | Part, *, alpha: float = 1) -> Pair:
    first, second = _pair(z), _pair(w)
    return Pair(first.real + alpha * second.real, first.imag + alpha * second.imag)


def _conjugate(z: Pair) -> Pair:
    return Pair(z.real, -z.imag)


def _square(z: Pair) -> Any:
    return z.real * z.real + z.imag * z.imag


def _size(z: Pair) -> Any:
    return _square(z) ** 0.5


def _divide(z: Pair | Part, w: Pair | Part) -> Pair:
    if not isinstance(w, Pair):
        assert isinstance(z, Pair)  # noqa: S101 — one of them is
        return Pair(z.real / w, z.imag / w)
    over = _times(z, _conjugate(w))
    square = _square(w)
    return Pair(over.real / square, over.imag / square)


def _sign(z: Pair) -> Pair:
    """z / |z|; 0 of 0."""
    size = _size(z)
    zero = size == 0
    scale = torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, size))
    return Pair(z.real * scale, z.imag * scale)


def _polar(size: Tensor, angle: Tensor) -> Pair:
    return Pair(size * angle.cos(), size * angle.sin())


def _exp(z: Any) -> Pair:
    return _polar(z.real.exp(), z.imag)


def _log(z: Any) -> Pair:
    return Pair(_square(z).log() * 0.5, torch.atan2(z.imag, z.real))


def _sqrt(z: Any) -> Pair:
    """The root with a real part ≥ 0; the larger part first, nothing cancels."""
    size, right = _size(z), z.real >= 0
    large = ((size + z.real.abs()) * 0.5).sqrt()
    small = torch.where(large == 0, 0.0, z.imag / (2 * torch.where(large == 0, 1.0, large)))
    signed = torch.where(z.imag < 0, -large, large)
    return Pair(torch.where(right, large, small.abs()), torch.where(right, small, signed))


def _power(z: Any, exponent: float | Pair) -> Pair:
    if isinstance(exponent, int | float) and float(exponent).is_integer() and 1 <= exponent <= 8:
        result = z
        for _ in range(int(exponent) - 1):
            result = _times(result, z)
        return result
    return _exp(_times(_log(z), exponent))


def _equal(z: Any, w: Any) -> Tensor:
    first: Any = _pair(z)
    second: Any = _pair(w)
    same: Tensor = (first.real == second.real) & (first.imag == second.imag)
    return same


def _in_place(rule: Callable[..., Pair]) -> Callable[..., Pair]:
    def written(z: Any, *rest: Any, **options: Any) -> Pair:
        result = rule(z, *rest, **options)
        z.real.copy_(result.real)
        z.imag.copy_(result.imag)
        return z

    return written


def _together(z: Pair) -> Tensor:
    """As [..., 2]."""
    return torch.stack([z.real, z.imag], -1)  # type: ignore[list-item]


def _apart(x: Tensor) -> Pair:
    return Pair(x.select(-1, 0), x.select(-1, 1))


def _scaled(value: Any, normalization: int, shape: Sequence[int], axes: Sequence[int]) -> Any:
    """Divided by 1, √n or n, of ``n`` numbers that are transformed."""
    factor = math.prod(shape[axis] for axis in axes) ** (-normalization / 2)
    if not normalization:
        return value
    return _times(value, factor) if isinstance(value, Pair) else value * factor


def _transform(z: Any, axes: Sequence[int], normalization: int, forward: bool) -> Any:
    """A Fourier transform of a complex tensor.

    Backwards it is the conjugate of the forward one of the conjugate: ONNX Runtime divides by n in
    float32.
    """
    given = z if forward else _conjugate(z)
    found = aten._fft_c2c.default(torch.view_as_complex(_together(given)), axes, 0, True)
    pair = _apart(torch.view_as_real(found))
    return _scaled(pair if forward else _conjugate(pair), normalization, z.real.shape, axes)


def _to_real(z: Any, axes: Sequence[int], normalization: int, size: int) -> Any:
    """The transform back of half a spectrum, whose other half is its conjugate."""
    *others, last = axes
    shape = list(z.real.shape)
    shape[last] = size
    if others:
        z = _transform(z, others, 0, False)
    end = (size + 1) // 2
    if end > 1:
        inner = _by_part(aten.slice.Tensor, (z, last, 1, end), {})
        rest = _conjugate(_by_part(aten.flip.default, (inner, [last]), {}))
        z = _by_part(aten.cat.default, ([z, rest], last), {})
    return _scaled(_transform(z, [last], 0, False).real, normalization, shape, axes)


def _of_real(x: Tensor, axes: Sequence[int], normalization: int, onesided: bool) -> Any:
    found = _apart(torch.view_as_real(aten._fft_r2c.default(x, axes, 0, onesided)))
    return _scaled(found, normalization, x.shape, axes)


RULES: dict[Any, Callable[..., Any]] = {
    aten.complex.default: lambda a, b: Pair(*torch.broadcast_tensors(a, b)),
    aten.polar.default: _polar,
    aten.sym_size.int: lambda z, axis: z.real.shape[axis],
    aten.view_as_real.default: _together,
    aten.view_as_complex.default: _apart,
    aten._conj.default: _conjugate,
    aten._conj_physical.default: _conjugate,
    aten._to_copy.default: _to_copy,
    aten.full.default: _filled,
    aten.scalar_tensor.default: lambda value, **options: _filled((), value, **options),
    aten.clone.default: _clone,
    aten.new_empty_strided.default: _new_empty,
    aten.mul.Tensor: _times,
    aten.mul.Scalar: _times,
    aten.mul_.Tensor: _in_place(_times),
    aten.mul_.Scalar: _in_place(_times),
    aten.as_strided.default: _strided,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill_.Scalar: _in_place(_masked_fill),
    aten.mm.default: _bilinear(torch.mm),
    aten.bmm.default: _bilinear(torch.bmm),
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: lambda z, w, *, alpha=1: _add(z, w, alpha=-alpha),
    aten.sub.Scalar: lambda z, w: _add(z, w, alpha=-1),
    aten.rsub.Scalar: lambda z, w: _add(w, z, alpha=-1),
    aten.div.Tensor: _divide,
    aten.div.Scalar: _divide,
    aten.reciprocal.default: lambda z: _divide(1.0, z),
    aten.pow.Tensor_Scalar: _power,
    aten.abs.default: _size,
    aten.angle.default: lambda z: torch.atan2(z.imag, z.real),
    aten.sgn.default: _sign,
    aten.exp.default: _exp,
    aten.log.default: _log,
    aten.sqrt.default: _sqrt,
    aten.eq.Scalar: _equal,
    aten.eq.Tensor: _equal,
    aten.ne.Scalar: lambda z, w: ~_equal(z, w),
    aten._fft_r2c.default: _of_real,
    aten._fft_c2c.default: _transform,
    aten._fft_c2r.default: _to_real,
}
_MAKE = (
    aten.complex.default,
    aten.polar.default,
    aten.view_as_complex.default,
    aten._fft_r2c.default,
)
_BY_PART = {
    aten.alias,
    aten.cat,
    aten.constant_pad_nd,
    aten.copy,
    aten.copy_,
    aten.cumsum,
    aten.detach,
    aten.diagonal,
    aten.empty_like,
    aten.expand,
    aten.flip,
    aten.gather,
    aten.index,
    aten.index_select,
    aten.lift_fresh_copy,
    aten.mean,
    aten.neg,
    aten.new_zeros,
    aten.permute,
    aten.repeat,
    aten.reshape,
    aten.roll,
    aten.select,
    aten.select_backward,
    aten.select_scatter,
    aten.slice,
    aten.slice_backward,
    aten.slice_scatter,
    aten.split,
    aten.squeeze,
    aten.squeeze_,
    aten.stack,
    aten.sum,
    aten.t,
    aten.transpose,
    aten.transpose_,
    aten.tril,
    aten.triu,
    aten.unbind,
    aten.unsqueeze,
    aten.unsqueeze_,
    aten.view,
    aten._unsafe_view,
    aten.where,
    aten.zeros,
    aten.zeros_like,
}
