"""The collection: networks and plain functions, deliberately hard ones among them.

Each is a name, the derivatives that are tried, and how to make its publication.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.zoo import functions as f
from bench.zoo import networks
from gradserve import Publication

DOUBLE, SINGLE = torch.float64, torch.float32
ROWS = 8


@dataclass(frozen=True)
class Model:
    """One of the collection. ``refused`` says why it must not be published, if it must not."""

    name: str
    functions: tuple[str, ...]
    build: Callable[[], Publication]
    refused: str | None = None


def normal(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Random examples with a batch of ``ROWS``."""
    return torch.randn(ROWS, *shape, dtype=dtype)


def spd() -> Tensor:
    """Symmetric positive definite 3×3 matrices."""
    a = normal(3, 3)
    return a @ a.mT + 3 * torch.eye(3, dtype=DOUBLE)


def squared(y: Tensor) -> Tensor:
    """The loss of ``loss_gradient``: mean square, a number a row."""
    return y.square().mean(1)


def network(
    name: str,
    kinds: str,
    make: Callable[[], nn.Module],
    shape: Sequence[int],
    dtype: torch.dtype,
    *,
    index: bool = False,
) -> Model:
    """A network with random weights."""
    functions = tuple(kinds.split())

    def build() -> Publication:
        torch.manual_seed(0)
        module = make().to(dtype).eval()
        examples = {"x": normal(*shape, dtype=dtype)}
        if index:
            examples["index"] = torch.randint(0, 10, (ROWS,))
        loss = squared if "loss_gradient" in functions else None
        return Publication(module, examples, ("y",), _derivatives(functions), loss=loss)

    return Model(name, functions, build)


def function(
    name: str,
    kinds: str,
    compute: Callable[..., Tensor],
    *examples: Callable[[], Tensor],
    parameters: Callable[[], dict[str, Tensor]] | None = None,
    refused: str | None = None,
) -> Model:
    """A plain function of one or more inputs."""
    functions = tuple(kinds.split())

    def build() -> Publication:
        torch.manual_seed(0)
        inputs = {letter: make() for letter, make in zip("xyz", examples, strict=False)}
        given = parameters() if parameters else {}
        return Publication(compute, inputs, ("f",), _derivatives(functions), parameters=given)

    return Model(name, functions, build, refused)


def _derivatives(functions: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in functions if name not in ("value", "loss_gradient"))


def pretrained_shape(name: str) -> Callable[[], nn.Module]:
    """A torchvision network with random weights."""

    def make() -> nn.Module:
        import torchvision

        built: nn.Module = getattr(torchvision.models, name)(weights=None)
        return built

    return make


def x3() -> Tensor:
    return normal(3)


def x5() -> Tensor:
    return normal(5)


EVERY = "value vjp jvp jacobian hvp hessian"
BRANCHES, RANDOM, MIXED = "branches on data", "random", "rows influence one another"

MODELS = (
    network("mlp-tanh-f64", f"{EVERY} loss_gradient", lambda: networks.mlp(nn.Tanh), (3,), DOUBLE),
    network("mlp-silu-f64", "hvp", lambda: networks.mlp(nn.SiLU), (3,), DOUBLE),
    network(
        "mlp-gelu-f32", "hvp jacobian loss_gradient", lambda: networks.mlp(nn.GELU), (3,), SINGLE
    ),
    network("mlp-softplus-f64", "hvp", lambda: networks.mlp(nn.Softplus), (3,), DOUBLE),
    network("mlp-lnres-f32", "hvp loss_gradient", networks.Residual, (3,), SINGLE),
    network("mlp-bn-f32", "hvp", networks.BatchNormed, (3,), SINGLE),
    network("mlp-emb-f32", "hvp", networks.Embedded, (3,), SINGLE, index=True),
    network("cnn-f32", "vjp hvp jacobian loss_gradient", networks.cnn, (1, 12, 12), SINGLE),
    network("cnn-f64", "value", networks.cnn, (1, 12, 12), DOUBLE),
    network("lstm-f32", "vjp loss_gradient", lambda: networks.Recurrent("LSTM"), (8, 3), SINGLE),
    network("lstm-f64", "value", lambda: networks.Recurrent("LSTM"), (8, 3), DOUBLE),
    network("gru-f32", "vjp", lambda: networks.Recurrent("GRU"), (8, 3), SINGLE),
    network("lstmcell-f32", "vjp", networks.Cells, (8, 3), SINGLE),
    network("encoder-f32", "value vjp hvp loss_gradient", networks.Encoder, (6, 3), SINGLE),
    network("sdpa-f32", "value vjp hvp jacobian", networks.Attention, (6, 3), SINGLE),
    network("flow-f64", "vjp hessian", networks.Flow, (4,), DOUBLE),
    network("resnet18-f32", "vjp", pretrained_shape("resnet18"), (3, 64, 64), SINGLE),
    network("mobilenetv3s-f32", "vjp", pretrained_shape("mobilenet_v3_small"), (3, 64, 64), SINGLE),
    function("rosenbrock", EVERY, f.rosenbrock, lambda: normal(4)),
    function("solve", "value vjp", lambda x, y: torch.linalg.solve(y, x), x3, spd),
    function("cholesky", "value vjp hvp", torch.linalg.cholesky, spd),
    function("logdet", "value", torch.logdet, spd),
    function("det", "value", torch.linalg.det, spd),
    function("inv", "value vjp", torch.linalg.inv, spd),
    function("eigvalsh", "value", torch.linalg.eigvalsh, spd),
    function("svdvals", "value", torch.linalg.svdvals, spd),
    function("matrix_exp", "value", lambda x: torch.matrix_exp(x * 0.1), spd),
    function(
        "ode-rk4",
        "value jacobian",
        f.lotka_volterra,
        lambda: torch.rand(ROWS, 3, dtype=DOUBLE) + 0.5,
    ),
    function("fft", "value vjp", lambda x: torch.fft.rfft(x).abs(), lambda: normal(8)),
    function("complex", "vjp", lambda x: (torch.exp(1j * x) * torch.complex(x, x**2)).abs(), x3),
    function("cumsum", "vjp", lambda x: torch.cumsum(x**2, 1), x3),
    function("cumprod", "vjp", lambda x: torch.cumprod(x, 1), x3),
    function("sort", "vjp", lambda x: torch.sort(x**2, 1)[0], x5),
    function("median", "value vjp", lambda x: (x**2).median(1)[0], x5),
    function("max", "vjp", lambda x: (x**2).max(1)[0], x5),
    function("topk", "vjp", lambda x: (x**2).topk(2, 1)[0], x5),
    function("quantile", "vjp", lambda x: torch.quantile(x**2, 0.3, dim=1), x5),
    function("interp", "vjp", f.interpolated, x3),
    function("where-clamp-abs", "vjp", f.pieces, x3),
    function("trig", "vjp", f.trigonometric, x3),
    function("atan2", "vjp", lambda x: torch.atan2(x[:, 0], x[:, 1] ** 2 + 1), x3),
    function("explog", "vjp", f.exponentials, x3),
    function("erf", "vjp", lambda x: torch.erf(x) + torch.special.ndtr(x), x3),
    function("lgamma", "vjp", lambda x: torch.lgamma(x.abs() + 0.5), x3),
    function("logsumexp", "vjp", f.softmaxes, x3),
    function("norm", "vjp", f.norms, x3),
    function("cosine", "vjp", lambda x, y: functional.cosine_similarity(x, y, dim=1), x3, x3),
    function("einsum", "vjp", lambda x, y: torch.einsum("nij,nj,ni->n", x, y, y), spd, x3),
    function("prod", "vjp", lambda x: x.prod(1), x3),
    function("std", "vjp", lambda x: x.std(1) + x.var(1), x3),
    function("cdist-gp", "vjp", f.kernel_sum(), lambda: normal(2)),
    function("roll-flip-pad", "vjp", f.moved, x3),
    function("index-put", "vjp", f.index_added, x3),
    function("setitem", "vjp", f.assigned, x3),
    function("interpolate2d", "vjp", f.enlarged, lambda: normal(1, 4, 4, dtype=SINGLE)),
    function("grid_sample", "vjp", f.sampled(), lambda: torch.rand(ROWS, 2) - 0.5),
    function("convT-f32", "vjp", f.deconvolved(), lambda: normal(2, 4, 4, dtype=SINGLE)),
    function("if-data", "vjp", lambda x: x**2 if bool(x.sum() > 0) else -x, x3, refused=BRANCHES),
    function("item", "vjp", lambda x: x * float(x.mean()), x3, refused=MIXED),
    function(
        "item-of-parameter",
        "vjp",
        lambda x, theta: x * float(theta[0]),
        x3,
        parameters=lambda: {"theta": torch.tensor([2.0], dtype=DOUBLE)},
        refused=BRANCHES,
    ),
    function("batch-statistics", "vjp", lambda x: x - x.mean(0), x3, refused=MIXED),
    function("numpy", "vjp", f.through_numpy, x3, refused="leaves PyTorch"),
    function("random", "vjp", lambda x: x * torch.randn_like(x), x3, refused=RANDOM),
    function("newton20", "vjp", f.newton, x3),
    function("customfn", "vjp", f.OwnExp.apply, x3),
    function("polyreg", "jacobian", f.polynomial, lambda: normal(1)),
    function("logreg-softmax", "jacobian", f.softmax_regression(), x3),
    function("gp", "hvp", f.gaussian_process(), lambda: normal(2)),
    function("gp-trisolve", "vjp", f.gaussian_process(solve=True), lambda: normal(2)),
    function(
        "theta-nonbatched",
        "value vjp jacobian",
        lambda x, theta: theta[0] * torch.exp(-theta[1] * x) + theta[2],
        normal,
        parameters=lambda: {"theta": torch.tensor([1.0, 0.5, 0.2], dtype=DOUBLE)},
    ),
    function(
        "fully-nonbatched",
        "value gradient hessian",
        f.rosenbrock_of_one,
        parameters=lambda: {"x": torch.randn(4, dtype=DOUBLE)},
    ),
)  # fmt: skip
