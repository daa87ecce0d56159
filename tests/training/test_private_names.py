"""Private names of PyTorch that are used: that they are there, and what is lost without them."""

import inspect
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from training.fit import device
from training.publish.record import record
from training.publish.recordable import recordable


def test_the_names_are_there() -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert isinstance(getattr(torch.cpu, name)(), bool)
    assert "_allow_non_fake_inputs" in inspect.signature(make_fx).parameters
    from torch._dynamo.source import ConstantSource  # noqa: F401
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: F401


def test_without_them_training_is_slower_and_otherwise_the_same(monkeypatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    monkeypatch.setitem(sys.modules, "training.fit.winograd", None)
    monkeypatch.delattr("training.fit.winograd", raising=False)
    chosen = device.choose_device("cpu")
    assert not chosen.bfloat16
    assert "Winograd" not in str(chosen)
    image = torch.ones(1, 1, 4, 4)
    with chosen.precision():
        given = torch.nn.functional.conv2d(image, torch.ones(1, 1, 3, 3))
    assert given.dtype == torch.float32
    assert torch.equal(given, torch.full((1, 1, 2, 2), 9.0))


def test_the_derivative_of_copy_is_taken_back() -> None:
    """``del`` of a Library unregisters: nothing is left in the process that publishes."""
    x = torch.ones(2, requires_grad=True)

    def slope() -> torch.Tensor:
        return torch.autograd.grad(torch.ops.aten.copy(torch.zeros(2), x * 2).sum(), x)[0]

    with recordable():
        assert torch.equal(slope(), torch.full((2,), 2.0))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not implemented"):
            slope()
        with pytest.raises(ValueError, match="stopped"), recordable():
            raise ValueError("stopped")


def test_distributions_are_recorded_without_their_checks() -> None:
    """Which look at the numbers; they are back afterwards."""

    def density(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale = torch.eye(2).expand(2, 2, 2)
        normal = torch.distributions.MultivariateNormal(torch.ones(2, 2), scale)
        mixed = torch.distributions.Categorical(torch.ones(2))
        return (torch.distributions.MixtureSameFamily(mixed, normal).log_prob(x),)

    torch.distributions.Distribution.set_default_validate_args(True)  # torch.compile sets False
    x = torch.linspace(-1, 1, 6).reshape(3, 2)
    recorded = record(density, [x], [True])
    torch.testing.assert_close(recorded(x), density(x))
    with pytest.raises(ValueError, match="constraint"):
        torch.distributions.Normal(0.0, -1.0)


def channels_last_mean(x: torch.Tensor) -> torch.Tensor:
    """Of pictures whose channels lie last, as after the LayerNorm of a ConvNeXt."""
    return torch.nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1) ** 2


def test_a_mean_over_pictures_is_recorded_without_strides() -> None:
    """PyTorch sets them in ``adaptive_avg_pool2d``; its own operator is back afterwards."""
    x = torch.randn(3, 4, 4, 2, generator=torch.Generator().manual_seed(0))

    def slope(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda y: channels_last_mean(y).sum())(x)

    recorded = record(lambda x: (slope(x),), [x], [True])
    assert not [node for node in recorded.graph.nodes if "strid" in str(node.target)]
    torch.testing.assert_close(recorded(x)[0], slope(x))
    pooled = torch.nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1)
    assert pooled.stride() == (2, 1, 2, 2)  # channels last, as PyTorch sets it
