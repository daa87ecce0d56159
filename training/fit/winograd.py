"""3×3 convolutions by Winograd's minimal filtering, for training in fp32 on CPUs.

F(4×4, 3×3) makes a 4×4 tile of outputs from a 6×6 tile of inputs with 36 multiplications a pair of
channels, where the definition takes 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308). PyTorch's CPU convolutions do not use it. The gradients with respect
to filters and inputs are the transposed steps, and save as much. The transforms of the tiles are in
winograd.cpp, built by the machine's C++ compiler at the first use; the products are PyTorch's.
"""

import functools
import logging
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SOURCE = Path(__file__).with_suffix(".cpp")
TILE = 4
PATCH = TILE + 2
LEAST_CHANNELS = 16  # below, the transforms cost more than they save
LONGEST_BUILD_SECONDS = 120.0
CHUNK = 2_000_000  # floats of transformed tiles at a time, which stay in the cache

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


@functools.cache
def transforms() -> Any:
    """The operators of winograd.cpp; None where they can't be built, for want of a C++ compiler.

    Building takes some 15 s, once: what was built stays in the user's cache.
    """
    try:
        from torch.utils import cpp_extension
    except ImportError:  # it needs setuptools
        return None
    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        return None
    # Of a virtual environment that is not activated, ninja would not be found.
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join((scripts, os.environ.get("PATH", os.defpath)))
    # It warns where CUDA is installed without a GPU, which does not matter here.
    logging.getLogger(cpp_extension.__name__).setLevel(logging.ERROR)
    try:
        cpp_extension.load(
            "gradserve_winograd",
            [str(SOURCE)],
            extra_cflags=["-O3", "-march=native", "-fopenmp"],
            build_directory=str(_build_directory()),
            is_python_module=False,
        )
    except (RuntimeError, OSError):
        return None
    return torch.ops.gradserve_winograd


def _build_directory() -> Path:
    """Where the operators are built, free of a lock that nobody holds. Raises OSError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    which = f"winograd-{sys.implementation.cache_tag}-{torch.__version__}"
    directory = cache / "gradserve" / which
    directory.mkdir(parents=True, exist_ok=True)
    # PyTorch waits without end for another build, even one that was killed.
    lock = directory / "lock"
    try:
        while time.time() - lock.stat().st_mtime < LONGEST_BUILD_SECONDS:
            time.sleep(0.2)
        lock.unlink()
    except FileNotFoundError:
        pass
    return directory


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
    channels last. ``transforms`` must not be None.
    """
    y: Tensor = _Winograd.apply(x, weight)
    return y if bias is None else y + bias[:, None, None]


class _Winograd(torch.autograd.Function):
    # Images are [n, h, w, channels] in here, and tiles [36, tiles, channels].

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        o, c = weight.shape[:2]
        images = x.permute(0, 2, 3, 1).contiguous()
        n, h, w, _ = images.shape
        filters = _both_sides(G, weight.permute(2, 3, 1, 0)).view(PATCH**2, c, o)
        chunk = max(1, CHUNK * 2 * TILE**2 // (PATCH**2 * h * w * (c + o)))
        result = images.new_empty(n, h, w, o)
        kept = []
        for part, out in zip(images.split(chunk), result.split(chunk), strict=True):
            tiles = _empty_tiles(part)
            transforms().input(part, tiles)
            transforms().output(torch.bmm(tiles, filters), out)
            if ctx.needs_input_grad[1]:
                kept.append(tiles)
        ctx.tiles, ctx.filters, ctx.chunk = kept, filters, chunk
        return result.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        want_x, want_weight = ctx.needs_input_grad
        images = gradient.permute(0, 2, 3, 1).contiguous()
        of_filters = torch.zeros_like(ctx.filters)
        of_x = images.new_empty(*images.shape[:3], ctx.filters.shape[1]) if want_x else None
        for index, part in enumerate(images.split(ctx.chunk)):
            products = _empty_tiles(part)
            transforms().output_gradient(part, products)
            if want_weight:
                of_filters.baddbmm_(ctx.tiles[index].transpose(1, 2), products)
            if of_x is not None:
                start = index * ctx.chunk
                transforms().input_gradient(
                    torch.bmm(products, ctx.filters.transpose(1, 2)),
                    of_x[start : start + len(part)],
                )
        ctx.tiles = None
        of_weight = None
        if want_weight:
            of_filters = of_filters.view(PATCH, PATCH, *of_filters.shape[1:])
            of_weight = _both_sides(G.T, of_filters).permute(3, 2, 0, 1)
        return of_x if of_x is None else of_x.permute(0, 3, 1, 2), of_weight


def _empty_tiles(images: Tensor) -> Tensor:
    """Room for the tiles of images [n, h, w, c]: [36, n · h/4 · w/4 + 1, c].

    The one tile too many is of zeros and keeps the 36 planes off each other's cache sets, where
    they would start at multiples of 4 KiB.
    """
    n, h, w, c = images.shape
    count = n * (h // TILE) * (w // TILE)
    tiles = images.new_empty(PATCH**2, count + 1, c)
    tiles[:, count] = 0
    return tiles


def _both_sides(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix`` [p, q] times x [q, q, a, b] times its transpose: [p, p, a, b]."""
    return torch.einsum("iq,jr,qrab->ijab", matrix, matrix, x)
