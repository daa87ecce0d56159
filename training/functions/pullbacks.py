"""Pullbacks, two ways: by a transform of ``torch.func``, or by the graph that autograd keeps.

A transform takes in-place writes apart and is tried first. It can't enter a function that itself
differentiates by ``torch.autograd.grad``, or an ``autograd.Function`` without ``setup_context``;
autograd's graph can.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from training.publish.record import bars_transforms

Function = Callable[..., Any]
Pullback = Callable[..., tuple[Any, Function]]  # (function, *values) → what it gives, cotangent → …


def either_way(
    compute: Callable[[Pullback, Sequence[Tensor]], tuple[Tensor, ...]],
) -> Callable[..., tuple[Tensor, ...]]:
    """``compute(pullback, arguments)`` as a function of its arguments, by the way that works."""

    def computed(*arguments: Tensor) -> tuple[Tensor, ...]:
        try:
            return compute(_by_transform, arguments)
        except RuntimeError as error:
            if not bars_transforms(error):
                raise
            return compute(_by_graph, arguments)

    return computed


def _by_transform(function: Function, *values: Tensor) -> tuple[Any, Function]:
    result: Any = vjp(function, *values)
    return result[0], result[1]


def _by_graph(function: Function, *values: Tensor) -> tuple[Any, Function]:
    # Of what another pullback varies, a view: its gradient is then by this use alone.
    leaves = [
        each.view_as(each) if each.requires_grad else each.detach().requires_grad_(True)
        for each in values
    ]
    result = function(*leaves)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)

    def pull(cotangents: Any) -> tuple[Tensor, ...]:
        given = (cotangents,) if isinstance(cotangents, Tensor) else tuple(cotangents)
        pairs = [pair for pair in zip(outputs, given, strict=True) if pair[0].requires_grad]
        if not pairs:
            return tuple(torch.zeros_like(leaf) for leaf in leaves)
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            leaves,
            [cotangent for _, cotangent in pairs],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(
            torch.zeros_like(leaf) if each is None else each
            for each, leaf in zip(found, leaves, strict=True)
        )

    return result, pull
