"""Examples at a kink, where rounding decides what the derivative is.

The gradient of a network with ReLU or max-pooling jumps where a unit is at its threshold. Within
rounding of one, the graph and PyTorch may stand on different sides and both be right: of ResNet-18
in float32, one random picture in eight. Such examples prove nothing, and would fail again at the
next load on another processor; they are found by PyTorch alone, whatever the graph gives.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PAIRS = 4  # moves there and back
STEP = 32  # a move, in units of the last place of the largest input
STEPS = (2, 8, 32)  # moves within which PyTorch is to give a graph's answer
PIXEL = 255.0


def away_from_kinks(
    reference: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    rows: int,
    by_row: Sequence[int],
    tolerance: float,
) -> Tensor:
    """Places of the rows of ``inputs`` that are not at a kink, int64.

    A row is at one if f(x + d) − 2 f(x) + f(x − d) exceeds ``tolerance`` of the largest f for a
    tiny random d: of a smooth f hardly more than rounding is left of it. ``by_row`` are the places
    of the outputs of ``reference`` that have the rows first; others are sums over them, and not
    looked at.
    """
    generator = torch.Generator().manual_seed(2)
    here = [each.detach() for each in reference(inputs)]
    settled = torch.ones(rows, dtype=torch.bool)
    for _ in range(PAIRS):
        ahead, behind = map(reference, _moved(inputs, generator))
        for place in by_row:
            bend = (ahead[place] - 2 * here[place] + behind[place]).detach().abs()
            settled &= bend.reshape(rows, -1).amax(1) <= tolerance * here[place].abs().max()
    return torch.arange(rows)[settled]


def beside(
    reference: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    found: Sequence[Tensor],
    allowed: Sequence[float],
) -> Tensor:
    """Does PyTorch give each row of ``found`` a hair's breadth from the inputs? bool [rows].

    Of a graph that computes with other roundings than PyTorch no more can be asked (backward
    error). A smooth function gives nearly the same there as here, and a wrong graph neither.
    ``allowed`` is the largest difference of each output, all of which have the rows first.
    """
    generator = torch.Generator().manual_seed(4)
    explained = torch.zeros(len(found[0]), dtype=torch.bool)
    for step in STEPS:
        for _ in range(PAIRS):
            for moved in _moved(inputs, generator, step):
                same = torch.ones_like(explained)
                for here, there, most in zip(found, reference(moved), allowed, strict=True):
                    apart = (here - there).detach().abs().reshape(len(here), -1).amax(1)
                    same &= apart <= most
                explained |= same
            if explained.all():
                return explained
    return explained


def _moved(
    inputs: Sequence[Tensor], generator: torch.Generator, step: float = STEP
) -> list[list[Tensor]]:
    """The inputs moved at random, there and back."""
    moves = [_move(tensor, generator, step) for tensor in inputs]
    return [
        [
            tensor if move is None else tensor + sign * move
            for tensor, move in zip(inputs, moves, strict=True)
        ]
        for sign in (1, -1)
    ]


def _move(tensor: Tensor, generator: torch.Generator, step: float) -> Tensor | None:
    """A random move of real numbers and of pixels; none of other integers."""
    if tensor.dtype == torch.uint8:
        kind, largest = torch.float32, PIXEL
    elif tensor.is_floating_point():
        kind, largest = tensor.dtype, float(tensor.abs().max())
    else:
        return None
    noise = torch.rand(tensor.shape, generator=generator, dtype=kind) * 2 - 1
    return noise * (step * torch.finfo(kind).eps * largest)
