"""``grid_sample``: its gradients, which ONNX has no operator for, and float64.

The formulas are those of PyTorch's ``GridSampler.h``, slopes at the borders included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from training.publish.rules.special import in_float64

aten = torch.ops.aten
BILINEAR, NEAREST = 0, 1
ZEROS, BORDER = 0, 1


def grid_sampler_2d_backward(
    gradient: Tensor,
    x: Tensor,
    grid: Tensor,
    mode: int,
    padding: int,
    align_corners: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor]:
    """Gradients by the pictures x [n, c, h, w] and by the places grid [n, a, b, 2].

    ``gradient`` is [n, c, a, b]. Bicubic is left as it is.
    """
    if mode not in (BILINEAR, NEAREST):
        return NotImplemented
    rows, channels, height, width = x.shape
    across, across_slope = _place(grid[..., 0], width, padding, align_corners)
    down, down_slope = _place(grid[..., 1], height, padding, align_corners)
    left, top = (
        (across.floor(), down.floor()) if mode == BILINEAR else (across.round(), down.round())
    )
    flat = x.flatten(2)
    sent = gradient.flatten(2)  # [n, c, places]
    by_x = torch.zeros_like(flat)
    by_across, by_down = torch.zeros_like(across), torch.zeros_like(down)
    for right, below in [(0, 0), (0, 1), (1, 0), (1, 1)] if mode == BILINEAR else [(0, 0)]:
        column, line = left + right, top + below
        inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
        index = torch.where(inside, line * width + column, 0.0).to(torch.int64)
        index = index.reshape(rows, 1, -1).expand(-1, channels, -1)
        share_across = (1 - (across - column).abs()) if mode == BILINEAR else 1.0
        share_down = (1 - (down - line).abs()) if mode == BILINEAR else 1.0
        share = torch.where(inside, share_across * share_down, 0.0).reshape(rows, 1, -1)
        by_x = by_x.scatter_add(2, index, sent * share)
        if mode == BILINEAR:
            seen = (flat.gather(2, index) * sent).sum(1).reshape(across.shape)
            seen = torch.where(inside, seen, 0.0)
            by_across = by_across + seen * share_down * (2 * right - 1)
            by_down = by_down + seen * share_across * (2 * below - 1)
    by_grid = torch.stack([by_across * across_slope, by_down * down_slope], -1)
    return by_x.reshape(x.shape) if wanted[0] else None, by_grid


def _place(
    grid: Tensor, size: int, padding: int, align_corners: bool
) -> tuple[Tensor, Tensor | float]:
    """Where −1…1 lies among pixels 0…size − 1, and the slope of that."""
    scale = (size - 1) / 2 if align_corners else size / 2
    place = grid * scale + (size - 1) / 2
    if padding == ZEROS:
        return place, scale
    slope: Tensor | float = scale
    if padding != BORDER:  # reflected at the centres of the outer pixels, or at their outer edges
        low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
        if span == 0:
            return torch.zeros_like(place), 0.0
        distance = (place - low).abs()
        turns = (distance / span).floor()
        rest = distance - turns * span
        odd = turns - 2 * (turns / 2).floor() > 0
        slope = torch.where((place < low) != odd, -scale, scale)
        place = torch.where(odd, span - rest, rest) + low
    outside = (place <= 0) | (place >= size - 1)
    return place.clamp(0, size - 1), torch.where(outside, 0.0, slope)


RULES: dict[Any, Callable[..., Any]] = {
    aten.grid_sampler_2d_backward.default: grid_sampler_2d_backward,
    **{
        operator: in_float64(rule)
        for operator, rule in get_decompositions([aten.grid_sampler_2d]).items()
    },
}
