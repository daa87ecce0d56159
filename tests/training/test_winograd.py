"""Winograd's convolution against PyTorch's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.fit import winograd
from training.fit.device import Device
from training.fit.winograd import WinogradConvolutions, convolve, suits

pytestmark = pytest.mark.skipif(
    winograd.transforms() is None, reason="there is no C++ compiler to build winograd.cpp"
)


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


@pytest.mark.parametrize(
    ("n", "channels_in", "channels_out", "height", "width"),
    [(1, 16, 16, 4, 4), (7, 24, 20, 16, 12), (5, 32, 64, 8, 32), (2, 19, 5, 4, 8)],
)
@pytest.mark.parametrize("chunk", [1, 200_000, winograd.CHUNK])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04)])
def test_results_and_gradients_are_those_of_conv2d(
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    channels_in: int,
    channels_out: int,
    height: int,
    width: int,
    chunk: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    monkeypatch.setattr(winograd, "CHUNK", chunk)
    torch.manual_seed(1)
    shapes = [(n, channels_in, height, width), (channels_out, channels_in, 3, 3), (channels_out,)]
    inputs = [torch.randn(shape) for shape in shapes]
    inputs[0] = inputs[0].to(dtype)
    outer = torch.randn(n, channels_out, height, width).to(dtype)
    found = [tensor.clone().requires_grad_() for tensor in inputs]
    wanted = [tensor.double().requires_grad_() for tensor in inputs]
    y = convolve(*found)
    assert y.dtype is dtype
    y.backward(outer)
    exact = functional.conv2d(*wanted, padding=1)
    exact.backward(outer.double())
    assert _relative_error(y, exact) < tolerance
    for mine, its in zip(found, wanted, strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert mine.grad.dtype is mine.dtype
        assert _relative_error(mine.grad, its.grad) < tolerance


def test_bfloat16_tiles_are_rounded_to_the_nearest() -> None:
    images = torch.randn(3, 8, 8, 19).bfloat16()
    tiles = [winograd._empty_tiles(images.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for of in tiles:
        winograd.transforms().input(images.to(of.dtype), of)
    torch.testing.assert_close(tiles[1].float(), tiles[0], rtol=1.01 * 2**-8, atol=1e-6)


def test_autocast_decides_the_precision_and_the_filters_stay_in_fp32() -> None:
    conv = nn.Conv2d(32, 8, 3, padding="same")
    device = Device(torch.device("cpu"), bfloat16=True)
    assert str(device).endswith(", bf16 autocast, Winograd")
    x = torch.randn(2, 32, 8, 8)
    with device.precision():
        y = conv(x)
    assert y.dtype is torch.bfloat16
    assert 1e-5 < _relative_error(y.float(), conv(x)) < 0.04
    y.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("trained", ["input", "filters"])
def test_a_gradient_that_nobody_asked_for_is_left_out(trained: str) -> None:
    x = torch.randn(2, 16, 8, 8, requires_grad=trained == "input")
    weight = torch.randn(16, 16, 3, 3, requires_grad=trained == "filters")
    convolve(x, weight).sum().backward()
    assert (x.grad is not None) == (trained == "input")
    assert (weight.grad is not None) == (trained == "filters")


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 8, 3, padding="same", bias=False),
        nn.Conv2d(32, 8, 3, padding="same"),
        nn.Conv2d(32, 8, 3, padding=1),
        nn.Conv2d(32, 8, 3),
        nn.Conv2d(32, 8, 3, padding=1, stride=2),
        nn.Conv2d(32, 8, 3, padding=2, dilation=2),
        nn.Conv2d(64, 8, 3, padding=1, groups=2),
        nn.Conv2d(32, 8, 5, padding=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [8, 10])
def test_the_mode_changes_no_convolution_but_in_rounding(conv: nn.Conv2d, size: int) -> None:
    x = torch.randn(2, conv.in_channels, size, size)
    plain = conv(x)
    with WinogradConvolutions():
        assert _relative_error(conv(x), plain) < 1e-5


def test_it_is_used_where_it_suits() -> None:
    x, weight = torch.randn(2, 32, 8, 8), torch.randn(8, 32, 3, 3)
    assert suits(x, weight, None, (1, 1), "same", (1, 1), 1)
    assert not suits(x.double(), weight.double(), None, (1, 1), "same", (1, 1), 1)
    assert not suits(x[:, :3], weight[:, :3], None, (1, 1), "same", (1, 1), 1)
    conv = nn.Conv2d(32, 8, 3, padding="same")
    with WinogradConvolutions():
        assert "Winograd" in conv(x).grad_fn.next_functions[0][0].name()


def test_without_a_compiler_training_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(torch.device("cpu"), bfloat16=False)
    assert device.advice() is None
    assert str(device).endswith(", fp32, Winograd")
    monkeypatch.setattr(winograd, "transforms", lambda: None)
    assert "C++ compiler" in (device.advice() or "")
    assert str(device).endswith(", fp32")
    conv = nn.Conv2d(32, 8, 3, padding="same")
    with device.precision():
        assert "Winograd" not in conv(torch.randn(2, 32, 8, 8)).grad_fn.name()


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_compiler_that_fails_is_as_none(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("Error building extension 'gradserve_winograd'")

    monkeypatch.setattr("torch.utils.cpp_extension.load", fails)
    assert winograd.transforms.__wrapped__() is None
    assert not list(empty_cache.rglob("*.so"))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cache))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert winograd.transforms.__wrapped__() is None


def test_it_is_built_once_beside_a_build_that_was_killed(empty_cache: Path) -> None:
    library = winograd._cached_library()
    killed = library.parent / "tmp-of-a-build-that-was-killed"
    killed.mkdir(parents=True)
    (killed / "lock").touch()
    check = (
        "import sys; from training.fit import winograd;"
        "print(winograd.transforms() is not None, 'torch.utils.cpp_extension' in sys.modules)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(empty_cache)}
    said = [
        subprocess.run(
            [sys.executable, "-c", check],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [first for first, _ in said] == ["True", "True"]
    assert said[0][1] == "True", "the first process builds"
    assert said[1][1] == "False", "the second finds what was built"
    assert sorted(library.parent.iterdir()) == sorted([killed, library])
