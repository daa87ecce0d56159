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
        moves = [_move(tensor, generator) for tensor in inputs]
        ahead, behind = (
            reference(
                [
                    tensor if move is None else tensor + sign * move
                    for tensor, move in zip(inputs, moves, strict=True)
                ]
            )
            for sign in (1, -1)
        )
        for place in by_row:
            bend = (ahead[place] - 2 * here[place] + behind[place]).detach().abs()
            settled &= bend.reshape(rows, -1).amax(1) <= tolerance * here[place].abs().max()
    return torch.arange(rows)[settled]


def _move(tensor: Tensor, generator: torch.Generator) -> Tensor | None:
    """A random move of real numbers and of pixels; none of other integers."""
    if tensor.dtype == torch.uint8:
        kind, largest = torch.float32, PIXEL
    elif tensor.is_floating_point():
        kind, largest = tensor.dtype, float(tensor.abs().max())
    else:
        return None
    noise = torch.rand(tensor.shape, generator=generator, dtype=kind) * 2 - 1
    return noise * (STEP * torch.finfo(kind).eps * largest)
