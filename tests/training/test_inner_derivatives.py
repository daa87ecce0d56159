"""Functions that themselves differentiate, or bring a derivative of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._functorch import eager_transforms
from torch.func import grad, hessian, jacfwd, jacrev, vmap

from gradserve import Publication
from training.errors import JobError
from training.functions import differences, publisher
from training.functions.exported import export_plan
from training.functions.function_spec import describe
from training.publish.record import record
from training.publish.recordable import recordable

DOUBLE = torch.float64
torch.manual_seed(0)
NETWORK = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double().requires_grad_(False)
ROWS = torch.randn(8, 2, dtype=DOUBLE)


def energy(x: Tensor) -> Tensor:
    """Of one row."""
    return NETWORK(x).sum()


def product(x: Tensor) -> Tensor:
    """Of one row."""
    return NETWORK(x) * x.sin()


def residual(x: Tensor) -> Tensor:
    """Of a differential equation, as physics-informed networks have it."""
    x = x.requires_grad_(True)
    u = NETWORK(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
    return torch.cat([u, slope, bend], 1)


class OldSine(torch.autograd.Function):
    """As they were written before ``setup_context``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient * x.cos()


class OldCube(torch.autograd.Function):
    """Keeps something in between, of which autograd knows no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        square = x.square()
        ctx.save_for_backward(square)
        return x * square

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (square,) = ctx.saved_tensors
        return gradient * 3 * square


def old(x: Tensor) -> Tensor:
    result: Tensor = OldSine.apply(x) * x
    return result


@pytest.mark.parametrize(
    ("function", "derivatives"),
    [
        (vmap(jacrev(grad(energy))), ("vjp",)),
        (vmap(jacfwd(product)), ("jvp",)),
        (residual, ("jacobian",)),
        (old, ("jvp", "hvp")),
    ],
)
def test_they_are_published(
    tmp_path: Path, function: Callable[..., Any], derivatives: tuple[str, ...]
) -> None:
    asked = Publication(function, {"x": ROWS.clone()}, derivatives=derivatives)
    tried, plans = publisher.planned(asked)
    assert not tried.refused
    for each in plans:
        done = export_plan(each, tried.examples, tmp_path)
        assert done.checked.relative_error < 1e-12
    assert tried.spec is not None
    assert max(differences.check(asked, tried.spec).values()) < 1e-6


def test_a_loss_of_them(tmp_path: Path) -> None:
    """A network whose layer is an old Function, by its weights."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, dtype=DOUBLE)

        def forward(self, x: Tensor) -> Tensor:
            return old(self.layer(x))

    asked = Publication(Network(), {"x": ROWS}, loss=lambda y: y.square().sum(1))
    tried, plans = publisher.planned(asked)
    done = export_plan(plans[-1], tried.examples, tmp_path)
    assert done.plan.name == "loss_gradient"
    assert done.checked.relative_error < 1e-12


def test_a_graph_that_was_not_created() -> None:
    def cut(x: Tensor) -> Tensor:
        x = x.requires_grad_(True)
        return torch.autograd.grad(NETWORK(x).sum(), x)[0]

    asked = Publication(cut, {"x": ROWS.clone()}, derivatives=("vjp",))
    with pytest.raises(JobError, match=r"not the derivative.*create_graph=True"):
        differences.check(asked, describe(asked))


def test_what_autograd_can_differentiate_once_only() -> None:
    asked = Publication(OldCube.apply, {"x": ROWS}, derivatives=("hvp",))
    with pytest.raises(JobError, match="hvp: not the derivative"):
        differences.check(asked, describe(asked))


def test_what_asks_for_no_gradient_first_is_told() -> None:
    asked = Publication(lambda x: torch.autograd.grad(NETWORK(x).sum(), x)[0], {"x": ROWS})
    with pytest.raises(JobError, match=r"torch\.func\.grad, or x\.requires_grad_\(True\)"):
        describe(asked)


def test_parameters_need_the_new_form() -> None:
    asked = Publication(
        lambda x, theta: old(x) * theta,
        {"x": ROWS},
        parameters={"theta": torch.ones(2, dtype=DOUBLE)},
        derivatives=("vjp",),
    )
    with pytest.raises(JobError, match=r"vjp: .*setup_context\(\).*torch\.func\.grad"):
        publisher.check(asked)


def test_the_forms_that_can_be_recorded_give_the_same() -> None:
    before = eager_transforms._jvp_with_argnums
    tensors = torch.ones(2, 2), torch.ones(3, dtype=DOUBLE)
    units = eager_transforms._chunked_standard_basis_for_
    wanted = [list(units(tensors, (4, 3), size)) for size in (None, 2, 50)]
    forward, second = jacfwd(product)(ROWS[0]), hessian(energy)(ROWS[0])
    with recordable():
        units = eager_transforms._chunked_standard_basis_for_
        for size, parts in zip((None, 2, 50), wanted, strict=True):
            for mine, theirs in zip(units(tensors, (4, 3), size), parts, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        torch.testing.assert_close(jacfwd(product)(ROWS[0]), forward)
        torch.testing.assert_close(hessian(energy)(ROWS[0]), second)
        value, aux = jacfwd(lambda x: (product(x), x), has_aux=True)(ROWS[0])
        torch.testing.assert_close(value, forward)
        torch.testing.assert_close(aux, ROWS[0])
    assert eager_transforms._jvp_with_argnums is before


def test_a_number_of_a_recording_is_kept_once() -> None:
    def steps(x: Tensor) -> tuple[Tensor]:
        for _ in range(20):
            x = x * 0.1 + 0.2
        return (x,)

    recorded = record(steps, [ROWS], [True])
    assert len(dict(recorded.named_buffers())) == 2
    torch.testing.assert_close(recorded(ROWS), steps(ROWS), rtol=1e-15, atol=1e-15)
