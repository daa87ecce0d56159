"""3×3 convolutions by Winograd's minimal filtering, for training on CPUs, in fp32 or bfloat16.

F(4×4, 3×3) makes a 4×4 tile of outputs from a 6×6 tile of inputs with 36 multiplications a pair of
channels, where the definition takes 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308). PyTorch's CPU convolutions do not use it. The gradients with respect
to filters and inputs are the transposed steps, and save as much. The transforms of the tiles are in
winograd.cpp, built by the machine's C++ compiler at the first use; the products are PyTorch's.

Transformed tiles are sums and differences of inputs. They are larger than the outputs, and so are
their rounding errors. With the usual points 0, ±1, ±2 they come to 2.9 % of an output's
standard deviation in bfloat16, with ±2/3 and ±4/3 to 1.3 % (128 channels; by definition 0.2 %).
"""

import functools
import hashlib
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.backends.cpu import get_cpu_capability
from torch.overrides import TorchFunctionMode

SOURCE = Path(__file__).with_suffix(".cpp")
TILE = 4
PATCH = TILE + 2
LEAST_CHANNELS = 32  # below, the transforms cost more than they save
CHUNK = 16_000_000  # bytes of transformed tiles at a time, which a shared cache holds

_A = 2 / 3  # the points are 0, ±a, ±2a and ∞, here and in winograd.cpp
G = torch.tensor(
    [
        [1 / (4 * _A**4), 0.0, 0.0],
        [-1 / (6 * _A**4), -1 / (6 * _A**3), -1 / (6 * _A**2)],
        [-1 / (6 * _A**4), 1 / (6 * _A**3), -1 / (6 * _A**2)],
        [1 / (24 * _A**4), 1 / (12 * _A**3), 1 / (6 * _A**2)],
        [1 / (24 * _A**4), -1 / (12 * _A**3), 1 / (6 * _A**2)],
        [0.0, 0.0, 1.0],
    ]
)


@functools.cache
def transforms() -> Any:
    """The operators of winograd.cpp; None where they can't be built (there is no C++ compiler).

    Building takes some 15 s, once: the library that was built stays in the user's cache.
    """
    library = _cached_library()
    try:
        if library.exists():
            torch.ops.load_library(library)
        else:
            library.parent.mkdir(parents=True, exist_ok=True)
            _build(library)
    except (ImportError, RuntimeError, OSError):
        return None
    return torch.ops.gradserve_winograd


def _cached_library() -> Path:
    """Where the library of this source, for this Python, PyTorch and processor, is or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built_from = f"{sys.implementation.cache_tag}-{torch.__version__}-{get_cpu_capability()}"
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    return cache / "gradserve" / f"winograd-{built_from}-{digest[:16]}.so"


def _build(library: Path) -> None:
    """Build and load ``library``. Raises ImportError, RuntimeError or OSError where it can't."""
    from torch.utils import cpp_extension  # it needs setuptools, which not everybody has

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        raise OSError("there is no C++ compiler")
    # Without this, ninja is not found in a virtual environment that is not activated.
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join((scripts, os.environ.get("PATH", os.defpath)))
    # It warns where CUDA is installed without a GPU, which does not matter here.
    logging.getLogger(cpp_extension.__name__).setLevel(logging.ERROR)
    # Each build has its own folder: none waits for another, or finds an incomplete one.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        cpp_extension.load(
            "gradserve_winograd",
            [str(SOURCE)],
            extra_cflags=["-O3", "-march=native", "-fopenmp"],
            build_directory=folder,
            is_python_module=False,
        )
        Path(folder, "gradserve_winograd.so").replace(library)


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
    """Whether ``convolve`` gives the result of ``conv2d`` for these arguments, and is faster."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and weight.dtype is torch.float32
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
    """``conv2d(x, weight, bias, padding=1)``, to about six digits, or two where that is bfloat16.

    x: [n, c, h, w] of float32 or bfloat16, h and w multiples of 4; weight: float32 [o, c, 3, 3];
    result: [n, o, h, w], channels last, of x's dtype, or autocast's where that is on.
    ``transforms`` must not be None.
    """
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    with torch.autocast("cpu", enabled=False):
        y: Tensor = _Winograd.apply(x, weight)
        return y if bias is None else y + bias[:, None, None].to(y.dtype)


class _Winograd(torch.autograd.Function):
    # Images are [n, h, w, channels] in here, and tiles [36, tiles, channels].

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        o, c = weight.shape[:2]
        images = x.permute(0, 2, 3, 1).contiguous()
        n, h, w, _ = images.shape
        filters = _both_sides(G, weight.permute(2, 3, 1, 0)).view(PATCH**2, c, o).to(x.dtype)
        of_one = PATCH**2 * (h // TILE) * (w // TILE) * (c + o) * x.element_size() // 2
        chunk = max(1, CHUNK // of_one)
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
        of_filters = torch.zeros_like(ctx.filters, dtype=torch.float32)
        of_x = images.new_empty(*images.shape[:3], ctx.filters.shape[1]) if want_x else None
        for index, part in enumerate(images.split(ctx.chunk)):
            products = _empty_tiles(part)
            transforms().output_gradient(part, products)
            if want_weight:
                of_filters += torch.bmm(ctx.tiles[index].transpose(1, 2), products)
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

    One extra tile of zeros keeps the 36 planes from starting at multiples of 4 KiB, where they
    would compete for the same cache sets.
    """
    n, h, w, c = images.shape
    count = n * (h // TILE) * (w // TILE)
    tiles = images.new_empty(PATCH**2, count + 1, c)
    tiles[:, count] = 0
    return tiles


def _both_sides(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix`` [p, q] times x [q, q, a, b] times its transpose: [p, p, a, b]."""
    return torch.einsum("iq,jr,qrab->ijab", matrix, matrix, x)
