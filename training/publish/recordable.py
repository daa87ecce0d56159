"""PyTorch's own operators and transforms, while recording, where it has them in another form.

Each stands in for one of PyTorch's that computes the same and can't be recorded.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.distributions import Distribution
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

aten = torch.ops.aten


@contextmanager
def recordable() -> Iterator[None]:
    """The forms that can be recorded, until the end of the block."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("copy", _copy, "Autograd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was one before is known
        library.impl("adaptive_avg_pool2d", _average, "CompositeImplicitAutograd")
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback of what it raises as well
    try:
        with (
            torch.enable_grad(),
            _unchecked_distributions(),
            _instead("_chunked_standard_basis_for_", _unit_vectors),
            _instead("_jvp_with_argnums", _pushed),
        ):
            yield
    finally:
        log.setLevel(level)
        del library  # what it registered goes with it


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """``torch.distributions`` looks whether numbers are allowed, which a recording has none of."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


@contextmanager
def _instead(name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Something of ``torch.func``'s replaced, until the end of the block."""
    theirs = getattr(eager_transforms, name)
    setattr(eager_transforms, name, ours)
    try:
        yield
    finally:
        setattr(eager_transforms, name, theirs)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:  # noqa: ARG001
    """``aten.copy``, which ``functional`` makes of a write, has no derivative."""
    return source.to(target.dtype).expand(target.shape).clone()


def _average(picture: Tensor, size: Sequence[int]) -> Tensor:
    """The mean of a picture whose channels lie last sets strides, which ONNX doesn't have."""
    if tuple(size) == (1, 1):
        return picture.mean((-1, -2), keepdim=True)
    return aten._adaptive_avg_pool2d(picture, size)


def _unit_vectors(
    tensors: Sequence[Tensor], numels: Sequence[int], chunk_size: int | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """The unit vectors of ``jacrev`` and ``jacfwd``, which PyTorch writes into a diagonal."""
    total = sum(numels)
    step = chunk_size or total
    for start in range(0, total, step):
        place = torch.arange(start, min(start + step, total)).unsqueeze(1)
        units, offset = [], 0
        for tensor, numel in zip(tensors, numels, strict=True):
            unit = (place == torch.arange(offset, offset + numel)).to(tensor.dtype)
            units.append(unit.reshape(-1, *tensor.shape))
            offset += numel
        yield tuple(units)


def _pushed(
    function: Callable[..., Any],
    primals: Any,
    tangents: Any,
    argnums: Any,
    *,
    strict: bool = False,  # noqa: ARG001
    has_aux: bool,
) -> tuple[Any, ...]:
    """``jvp``, and with it ``jacfwd`` and ``hessian``, in reverse mode: forward isn't recorded.

    Jᵀu is linear in u, so that the pullback of u ↦ Jᵀu is J.
    """
    result: Any = eager_transforms._vjp_with_argnums(
        function, *primals, argnums=argnums, has_aux=has_aux
    )
    output, pull = result[0], result[1]
    second: Any = torch.func.vjp(pull, tree_map(torch.zeros_like, output))
    along = tree_unflatten(tree_flatten(tangents)[0], tree_flatten(second[0])[1])
    return output, second[1](along)[0], *result[2:]
