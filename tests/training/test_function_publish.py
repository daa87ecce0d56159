"""One's own functions as artifacts: what is published is what calculus says, and serves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.manifest import FunctionManifest
from contract.store import Artifact, verify
from gradserve import Publication, publish
from service.runtime.loader import load
from service.settings import Settings
from training.errors import JobError
from training.functions import publisher
from training.functions.exported import export_plan
from training.functions.function_spec import describe
from training.functions.loss import plan_of
from training.functions.plans import plan
from training.publish.agreement import GraphRunner

Array = NDArray[np.float64]


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("functions")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()


@pytest.fixture(scope="module")
def surrogate(root: Path, network: nn.Module) -> Artifact:
    torch.manual_seed(1)
    publication = Publication(
        network,
        examples={"x": torch.randn(16, 3, dtype=torch.float64)},
        outputs=("y",),
        derivatives=("jacobian", "vjp", "jvp", "hvp"),
        description="A small network",
    )
    return publish(publication, "surrogate", artifacts=root)


@pytest.fixture(scope="module")
def banana(root: Path) -> Artifact:
    torch.manual_seed(1)
    publication = Publication(
        rosenbrock,
        examples={"x": torch.randn(9, 2, dtype=torch.float64)},
        outputs=("f",),
        derivatives=("gradient", "hvp", "hessian"),
    )
    return publish(publication, "banana", artifacts=str(root))


def call(artifact: Artifact, name: str, **inputs: Array) -> Array:
    """The only output of a function, from the very graph that the service takes."""
    (found,) = GraphRunner(artifact.folder / f"{name}.onnx")(inputs).values()
    return found


def shapes(artifact: Artifact) -> dict[str, dict[str, tuple[int | str, ...]]]:
    return {
        name: {t.name: t.shape for t in (*function.inputs, *function.outputs)}
        for name, function in artifact.manifest.functions.items()
    }


def test_names_and_shapes_are_those_of_the_contract(surrogate: Artifact, banana: Artifact) -> None:
    x, tangent, cotangent = ("n", 3), ("n", "k", 3), ("n", "k", 2)
    assert shapes(surrogate) == {
        "value": {"x": x, "y": ("n", 2)},
        "jacobian": {"x": x, "jacobian_y_x": ("n", 2, 3)},
        "vjp": {"x": x, "cotangent_y": cotangent, "vjp_x": tangent},
        "jvp": {"x": x, "tangent_x": tangent, "jvp_y": cotangent},
        "hvp": {"x": x, "tangent_x": tangent, "cotangent_y": cotangent, "hvp_x": tangent},
    }
    assert shapes(banana) == {
        "value": {"x": ("n", 2), "f": ("n",)},
        "gradient": {"x": ("n", 2), "gradient_f_x": ("n", 2)},
        "hvp": {"x": ("n", 2), "tangent_x": ("n", "k", 2), "hvp_x": ("n", "k", 2)},
        "hessian": {"x": ("n", 2), "hessian_f_x_x": ("n", 2, 2)},
    }


def test_the_manifest_has_no_dummies(surrogate: Artifact) -> None:
    manifest = verify(surrogate.folder).manifest
    assert isinstance(manifest, FunctionManifest)
    assert (manifest.parameters, manifest.data, manifest.training) == (None, None, None)
    assert manifest.description == "A small network"
    assert np.shape(manifest.example["x"]) == (3,)
    assert manifest.ranges["x"][0] < 0 < manifest.ranges["x"][1]


def test_the_service_loads_it(surrogate: Artifact) -> None:
    """Its replay of the samples included."""
    loaded = load(surrogate.folder, Settings())
    assert set(loaded.functions) == {"value", "jacobian", "vjp", "jvp", "hvp"}


def test_directions_of_the_network(surrogate: Artifact, network: nn.Module) -> None:
    """Products with the very Jacobian and Hessian that ``torch.autograd.functional`` gives."""
    random = np.random.default_rng(0)
    x, tangent = random.normal(size=(5, 3)), random.normal(size=(5, 4, 3))
    cotangent = random.normal(size=(5, 4, 2))
    functional = torch.autograd.functional
    rows = [torch.from_numpy(row) for row in x]
    jacobian = np.stack([functional.jacobian(network, row).numpy() for row in rows])
    hessian = np.stack(
        [
            [functional.hessian(lambda row, j=j: network(row)[j], row).numpy() for j in range(2)]
            for row in rows
        ]
    )
    expected = {
        "jacobian": jacobian,
        "vjp": np.einsum("nkj,nji->nki", cotangent, jacobian),
        "jvp": np.einsum("nki,nji->nkj", tangent, jacobian),
        "hvp": np.einsum("nkj,njil,nkl->nki", cotangent, hessian, tangent),
    }
    given = {"x": x, "tangent_x": tangent, "cotangent_y": cotangent}
    for name, wanted in expected.items():
        needed = [tensor.name for tensor in surrogate.manifest.functions[name].inputs]
        found = call(surrogate, name, **{key: given[key] for key in needed})
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_rosenbrock_by_hand(banana: Artifact) -> None:
    x = np.array([[1.0, 1.0], [-1.2, 1.0], [0.5, -2.0]])
    a, b = x.T
    gradient = np.stack([-400 * a * (b - a**2) - 2 * (1 - a), 200 * (b - a**2)], 1)
    corner = -400 * a
    hessian = np.stack([1200 * a**2 - 400 * b + 2, corner, corner, np.full(3, 200.0)], 1)
    hessian = hessian.reshape(3, 2, 2)
    tangent = np.arange(12.0).reshape(3, 2, 2)
    close = {"rtol": 1e-12, "atol": 1e-10}
    np.testing.assert_allclose(call(banana, "gradient", x=x), gradient, **close)
    np.testing.assert_allclose(call(banana, "hessian", x=x), hessian, **close)
    found = call(banana, "hvp", x=x, tangent_x=tangent)
    np.testing.assert_allclose(found, np.einsum("nij,nkj->nki", hessian, tangent), **close)


def test_hessian_by_an_input_without_a_batch(tmp_path: Path) -> None:
    """Of a·exp(−b x), by x and by (a, b), for every row of x."""
    x = torch.linspace(0, 2, 9, dtype=torch.float64)
    theta = torch.tensor([1.5, 0.5], dtype=torch.float64)
    decay = Publication(
        lambda x, theta: theta[0] * torch.exp(-theta[1] * x),
        examples={"x": x},
        parameters={"theta": theta},
        outputs=("f",),
        derivatives=("hessian",),
    )
    artifact = publish(decay, "decay", tmp_path)
    run = GraphRunner(artifact.folder / "hessian.onnx")
    a, b, at = 2.0, 0.25, np.array([1.0, 3.0])
    found = run({"x": at, "theta": np.array([a, b])})
    size = np.exp(-b * at)
    mixed = np.stack([-b * size, a * size * (b * at - 1)], 1)
    corner = -at * size
    expected = {
        "hessian_f_x_x": a * b**2 * size,
        "hessian_f_x_theta": mixed,
        "hessian_f_theta_x": mixed,
        "hessian_f_theta_theta": np.stack([0 * at, corner, corner, a * at**2 * size], 1).reshape(
            2, 2, 2
        ),
    }
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=1e-13, err_msg=name)


def test_what_the_service_would_not_give_at_once_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "ELEMENTS", 3)
    said: list[str] = []
    publication = Publication(lambda x: (x, x[:, :3]), {"x": torch.ones(8, 4)}, outputs=("y", "z"))
    publish(publication, "wide", tmp_path, say=said.append)
    assert [line for line in said if "GRADSERVE_MAX_NUMBERS" in line] == [
        "y has 4 numbers a row: the service gives 3 in an answer, more with GRADSERVE_MAX_NUMBERS"
    ]


def test_a_loss_that_is_none() -> None:
    x = torch.linspace(0, 2, 9, dtype=torch.float64)
    for loss, words in (
        (lambda y: y / [], "loss= fails on the examples: TypeError"),
        (lambda y: torch.outer(y, y), r"loss= gives \[9, 9\]; it should give one number a row"),
    ):
        line = Publication(
            lambda x, slope: slope * x,
            examples={"x": x},
            parameters={"slope": torch.tensor(2.0, dtype=torch.float64)},
            loss=loss,
        )
        with pytest.raises(JobError, match=words):
            plan_of(line, describe(line))


class Cube(torch.autograd.Function):
    """x³ with a derivative written by hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * cotangent


def test_an_autograd_function_of_ones_own(tmp_path: Path) -> None:
    x = torch.linspace(-1, 2, 8, dtype=torch.float64).unsqueeze(1)
    publish(Publication(Cube.apply, {"x": x}, ("y",), ("jacobian",)), "cube", tmp_path)
    run = GraphRunner(tmp_path / "cube" / "1" / "jacobian.onnx")
    found = run({"x": np.array([[2.0]])})["jacobian_y_x"]
    np.testing.assert_allclose(found, [[[12.0]]], rtol=1e-12)


def test_layer_norm_of_an_input_in_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2), nn.Tanh()).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    spec = describe(Publication(network, {"x": x}))
    for name in ("value", "vjp", "jvp", "hvp"):
        assert export_plan(plan(name, spec), {"x": x}, tmp_path).checked.relative_error < 1e-12
