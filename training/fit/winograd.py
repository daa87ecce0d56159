"""3×3 convolutions by Winograd's minimal filtering, for training in fp32 on CPUs.

F(4×4, 3×3) makes a 4×4 tile of outputs from a 6×6 tile of inputs with 36 multiplications a pair of
channels, where the definition takes 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308, whose matrices these are). PyTorch's CPU convolutions do not use it.
The gradients with respect to filters and inputs are the transposed steps, and save as much.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

TILE = 4
PATCH = TILE + 2
LEAST_CHANNELS = 16  # below, the transforms cost more than they save
CHUNK = 2_000_000  # floats of transformed tiles at a time, which stay in the cache

# Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for the inputs d [6, 6], the filter g [3, 3], the outputs Y [4, 4].
B_T = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ]
)
G = torch.tensor(
    [
        [1 / 4, 0.0, 0.0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0.0, 0.0, 1.0],
    ]
)
A_T = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ]
)


class WinogradConvolutions(TorchFunctionMode):
    """While this is entered, every convolution that ``suits`` is computed by ``convolve``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and suits(*args):
            return convolve(args[0], args[1], args[2])
        return func(*args, **(kwargs or {}))


def suits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether ``convolve`` computes what ``conv2d`` would with these arguments, and sooner."""
    return (
        x.dtype is torch.float32
        and tuple(weight.shape[2:]) == (3, 3)
        and weight.shape[1] >= LEAST_CHANNELS
        and x.shape[-2] % TILE == 0
        and x.shape[-1] % TILE == 0
        and padding in ("same", 1, (1, 1))
        and stride in (1, (1, 1))
        and dilation in (1, (1, 1))
        and groups == 1
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d(x, weight, bias, padding=1)``, to about six digits.

    x: float32 [n, c, h, w], h and w multiples of 4; weight: [o, c, 3, 3]; result: [n, o, h, w],
    channels last.
    """
    y: Tensor = _Winograd.apply(x, weight)
    return y if bias is None else y + bias[:, None, None]


class _Winograd(torch.autograd.Function):
    # Images are [n, h, w, channels] in here, and tiles [6, 6, n, rows, columns, channels] or,
    # for the products over channels, [36, tiles, channels].

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        n, c, h, w = x.shape
        o, rows, columns = len(weight), h // TILE, w // TILE
        filters = _both_sides(G, weight.permute(2, 3, 1, 0)).view(PATCH**2, c, o)
        images = x.permute(0, 2, 3, 1)
        chunk = max(1, CHUNK // (PATCH**2 * rows * columns * (c + o) // 2))
        result = x.new_empty(n, rows, TILE, columns, TILE, o)
        kept = []
        for part, out in zip(images.split(chunk), result.split(chunk), strict=True):
            padded = functional.pad(part, (0, 0, 1, 1, 1, 1))
            tiles = _both_sides(B_T, _tiles(padded, rows, columns)).view(PATCH**2, -1, c)
            if ctx.needs_input_grad[1]:
                kept.append(tiles)
            outputs = _both_sides(A_T, _square(torch.bmm(tiles, filters)))
            outputs = outputs.view(TILE, TILE, len(part), rows, columns, o)
            out.copy_(outputs.permute(2, 3, 0, 4, 1, 5))
        ctx.tiles, ctx.filters, ctx.chunk = kept, filters, chunk
        return result.view(n, h, w, o).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        n, o, h, w = gradient.shape
        rows, columns, c = h // TILE, w // TILE, ctx.filters.shape[1]
        want_x, want_weight = ctx.needs_input_grad
        images = gradient.permute(0, 2, 3, 1).reshape(n, rows, TILE, columns, TILE, o)
        of_filters = torch.zeros_like(ctx.filters)
        of_x = gradient.new_empty(n, h, w, c) if want_x else None
        for index, part in enumerate(images.split(ctx.chunk)):
            products = _both_sides(A_T.T, part.permute(2, 4, 0, 1, 3, 5)).view(PATCH**2, -1, o)
            if want_weight:
                of_filters.baddbmm_(ctx.tiles[index].transpose(1, 2), products)
            if of_x is not None:
                tiles = _both_sides(
                    B_T.T, _square(torch.bmm(products, ctx.filters.transpose(1, 2)))
                ).view(PATCH, PATCH, len(part), rows, columns, c)
                start = index * ctx.chunk
                of_x[start : start + len(part)] = _add_up(tiles)[:, 1:-1, 1:-1]
        ctx.tiles = None
        of_weight = None
        if want_weight:
            of_weight = _both_sides(G.T, _square(of_filters)).view(3, 3, c, o).permute(3, 2, 0, 1)
        return of_x if of_x is None else of_x.permute(0, 3, 1, 2), of_weight


def _both_sides(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix`` [p, q] times x [q, q, …] times its transpose, over the first two axes: [p, p, m].

    Two thin matrix products, as a fused loop would need a compiler.
    """
    p, q = matrix.shape
    half = torch.mm(matrix, x.reshape(q, -1)).view(p, q, -1)
    return torch.bmm(matrix.expand(p, p, q), half)


def _square(x: Tensor) -> Tensor:
    """[36, tiles, channels] as [6, 6, tiles · channels]."""
    return x.view(PATCH, PATCH, -1)


def _tiles(padded: Tensor, rows: int, columns: int) -> Tensor:
    """The overlapping tiles [6, 6, n, rows, columns, c] of images [n, h + 2, w + 2, c], a view."""
    image, row, column, _ = padded.stride()
    return padded.as_strided(
        (PATCH, PATCH, len(padded), rows, columns, padded.shape[3]),
        (row, column, image, TILE * row, TILE * column, 1),
        padded.storage_offset(),
    )


def _add_up(tiles: Tensor) -> Tensor:
    """``_tiles`` transposed: images [n, h + 2, w + 2, c] from tiles, summed where they overlap."""
    _, _, n, rows, columns, c = tiles.shape
    total = tiles.new_zeros(n, rows * TILE + 2, columns * TILE + 2, c)
    view = _tiles(total, rows, columns)
    # In place, a piece must not overlap itself: the first four rows of every tile don't, nor the
    # last two.
    for i in (slice(0, TILE), slice(TILE, PATCH)):
        for j in (slice(0, TILE), slice(TILE, PATCH)):
            view[i, j] += tiles[i, j]
    return total
