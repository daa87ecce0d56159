"""What can't be published is refused, in words, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from gradserve import Publication, publish
from training.errors import JobError
from training.functions import differences, publisher, source
from training.functions.exported import export_plan
from training.functions.function_spec import constant_weights, describe
from training.functions.plans import plan, require_distinct
from training.functions.refusal import Refusal, from_runtime, from_tracing
from training.functions.template import TEMPLATE
from training.publish.record import record

ROWS = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)
SPARSE = torch.eye(3, dtype=torch.float64).to_sparse()


def publication(function: Callable[..., Any], **options: Any) -> Publication:
    return Publication(function, **{"examples": {"x": ROWS}, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"examples": {"x": ROWS[:7]}}, "x has 7 rows; give at least 8"),
        ({"examples": {"x": ROWS, "z": ROWS.repeat(2, 1)}}, "x 8, z 16"),
        ({"examples": {}}, "give examples="),
        ({"examples": {"x": ROWS.half()}}, "float16"),
        ({"examples": {"x": ROWS / 0}}, "not finite"),
        ({"examples": {"x": ROWS[:, :0]}}, "no elements"),
        ({"examples": {"x": ROWS.to("meta")}}, r"x is on meta; give x\.cpu\(\)"),
        ({"examples": {"tangent_x": ROWS}}, "derivatives are called so"),
        ({"examples": {"a.b": ROWS}}, "letters, digits and _"),
        ({"parameters": {"t": ROWS[:0]}}, "t has no elements"),
        ({"targets": ROWS}, "targets= should be tensors by name"),
        ({"parameters": {"x": ROWS}}, "two inputs are called 'x'"),
        ({"outputs": "y"}, 'such as \\("y",\\)'),
        ({"derivatives": ("hesian",)}, "there is no derivative 'hesian'"),
        ({"derivatives": ("saliency",)}, "saliency is of classifiers"),
        ({"targets": {"t": ROWS}}, "give loss="),
        ({"classes": ["a"]}, "two names or more"),
        ({"classes": [0, 1]}, "give strings"),
        ({"description": "x" * 2001}, "2001 characters"),
        ({"classes": ["a", "b"]}, "image_side="),
        ({"classes": ["a", "b"], "image_side": 5000}, "1024 is the most"),
    ],
)
def test_a_publication_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError, match=words):
        publication(nn.Identity(), **options)


class Doubling(nn.Module):
    """A dropout that stays active, whatever mode it is in."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, training=True)


class Counting(nn.Module):
    """Counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.sin()


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return x * torch.randn(3, dtype=x.dtype)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x * torch.randn_like(x), "value: random"),
        (Doubling(), "value: random"),
        (seeded, r"value: random: it draws random numbers \(aten\.randn.*pass them as an input"),
        (
            lambda x: torch.linalg.eigvalsh(x.reshape(-1, 1, 3) * x.reshape(-1, 3, 1)),
            "value: no ONNX rule: aten._linalg_eigh; .* fixed number of steps",
        ),
        (
            lambda x: torch.linalg.svdvals(x.reshape(-1, 1, 3)),
            "value: no ONNX rule: aten._linalg_svd; .* fixed number of steps",
        ),
        (lambda x: x - x.mean(0), "value: rows influence one another"),
        (lambda x: (x - 1).sqrt(), "value: not finite"),
        (lambda x: x.sum(), "its first size should be the number of rows"),
        (lambda x: (x, x), "gives 2 outputs, but outputs= names 1"),
        (lambda x: x > 0, "bool"),
        (lambda x: x[:, :0], r"y has no elements: its shape is \[8, 0\]"),
        (lambda x: x.to_sparse(), "y is sparse"),
        (lambda x: {"y": x}, "a tensor or a tuple of tensors, not dict"),
        (lambda x: x @ x, "the function fails on its examples"),
        (nn.Linear(3, 2), r"fails on its examples: .*; give examples.* one type: \.double\(\)"),
        (lambda x: x.matmul(torch.ones(3, 2)), r"one type: \.double\(\)"),
        (lambda x: x.mul_(2), "writes into its input x"),
        (lambda x: x[:, :1].squeeze(), r"y has shape \[\] for the first of its rows, not \[1\]"),
        (lambda x: x.reshape(8, 3), "the function fails on the first 3 of its rows"),
        (lambda x: torch.stack([row.sin() for row in x]), "size baked in: a loop over the rows"),
        (lambda x: (SPARSE @ x.T).T, r"sparse tensors; use their \.to_dense"),
        (nn.LazyLinear(2), "lazy layers; call it once"),
        (torch.vmap(lambda row: torch.cov(torch.stack([row, row**2]))), "branches on data"),
        (lambda x: x * x[0, 0].item(), "all rows but the last are left out"),
        (lambda x: x.sin() if type(x.shape[0]) is int else x.missing, "no attribute 'missing'"),
        (torch.compile(torch.sin), "torch.compile was applied to it"),
        (lambda x: x if len(x) != 7 else x / [], "value: .*PyTorch itself fails: TypeError"),
    ],
)
def test_a_function_that_cannot_be(
    tmp_path: Path, function: Callable[..., Any], words: str
) -> None:
    with pytest.raises(JobError, match=words):
        publish(publication(function), "wrong", tmp_path)
    assert [path.name for path in (tmp_path / "wrong").iterdir()] == [".lock"]


def test_what_changes_a_buffer_has_no_derivative(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"vjp: .* it was not given, .* not self\.training"):
        publish(publication(Counting(), derivatives=("vjp",)), "wrong", tmp_path)


def test_checkpointing_has_no_derivative(tmp_path: Path) -> None:
    asked = publication(
        lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False),
        derivatives=("vjp",),
    )
    with pytest.raises(Refusal, match=r"torch\.utils\.checkpoint.* not self\.training"):
        export_plan(plan("vjp", describe(asked)), {"x": ROWS}, tmp_path)


def test_what_pytorch_itself_cannot_record(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In words, and without the traceback that PyTorch logs."""

    def smaller(x: Tensor) -> Tensor:
        pictures = x.reshape(-1, 1, 1, 3)
        return nn.functional.interpolate(pictures, (1, 2), mode="bicubic", antialias=True)

    asked = publication(smaller, derivatives=("vjp",))
    made = plan("vjp", describe(asked))
    with pytest.raises(Refusal, match="can't record one of its operators"):
        export_plan(made, {"x": ROWS}, tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def test_torchscript_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    with pytest.raises(JobError, match=r"before torch\.jit"):
        publication(torch.jit.trace(network, ROWS))


def test_a_graph_that_is_not_valid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def invalid(_model: onnx.ModelProto, **_options: bool) -> None:
        raise onnx.shape_inference.InferenceError("B has inconsistent type\nand more")

    monkeypatch.setattr(onnx.checker, "check_model", invalid)
    with pytest.raises(JobError, match=r"value: can't be exported: .*B has inconsistent type$"):
        publisher.check(publication(torch.sin))


def recorded(function: Callable[..., Tensor]) -> Refusal:
    """The refusal of a function that can't be recorded."""
    with pytest.raises(Exception) as caught:
        record(lambda x: (function(x),), [ROWS], [True])
    return from_tracing("value", caught.value, str(caught.value))


def test_reasons_have_a_class() -> None:
    import numpy as np

    assert recorded(lambda x: x if x.sum() > 0 else -x).kind == "branches on data"
    assert recorded(lambda x: x * float(x.mean())).kind == "branches on data"
    assert ".item() (test_function_refusals.py, line " in str(
        recorded(lambda x: x * float(x.sum()))
    )
    mapped = torch.func.vmap(lambda x: x * float(x.sum()))  # as for parameters=
    assert recorded(mapped).kind == "branches on data"
    assert recorded(lambda x: torch.from_numpy(np.sin(x.numpy()))).kind == "leaves PyTorch"
    assert "torch.stack" in str(recorded(lambda x: x * torch.tensor([x[0, 0], 1.0, 2.0])))
    missing = RuntimeError("No ONNX function found for <OpOverload(op='aten._linalg_eigh', …)>")
    assert "no ONNX rule: aten._linalg_eigh" in str(from_tracing("value", missing, ""))
    written = RuntimeError("expected to have an entirely functional graph, but found %copy_to_1")
    assert "writes into a view" in str(from_tracing("vjp", written, ""))
    kernel = from_runtime("value", "Could not find an implementation for Resize(19) node")
    assert (kernel.kind, "Resize" in str(kernel)) == ("no float64 kernel in ONNX Runtime", True)


def straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


@pytest.mark.parametrize(
    ("function", "derivatives"),
    [
        (lambda x: (x.detach() * x**2).sum(1), ("gradient",)),
        (lambda x: (x**2 + x.detach() ** 2 * x).sum(1), ("hvp",)),
        (straight_through, ("jacobian",)),
    ],
)
def test_autograd_is_compared_with_differences(
    function: Callable[..., Tensor], derivatives: tuple[str, ...]
) -> None:
    asked = publication(function, derivatives=derivatives)
    with pytest.raises(Refusal, match="differs from central differences"):
        differences.check(asked, describe(asked))


def test_numbers_in_different_units_pass_that() -> None:
    """A temperature in kelvin, a pressure in pascal, a strain."""
    sizes = torch.tensor([300.0, 1e5, 1e-3], dtype=torch.float64)

    def stress(x: Tensor) -> Tensor:
        return x[:, 1] / x[:, 0] + 1e3 * torch.tanh(500 * x[:, 2]) + x[:, 2].log()

    asked = publication(
        stress, examples={"x": (1.5 + ROWS) * sizes}, derivatives=("jacobian", "hvp")
    )
    found = differences.check(asked, describe(asked))
    assert 0 < found["first"] < 1e-6
    assert 0 < found["second"] < 1e-6


def test_what_is_never_differentiated_is_told() -> None:
    @torch.inference_mode()
    def function(x: Tensor) -> Tensor:
        return x * 2

    asked = publication(function, derivatives=("jacobian",))
    with pytest.raises(Refusal, match=r"torch\.inference_mode"):
        differences.check(asked, describe(asked))


def test_smooth_functions_and_kinks_pass_that() -> None:
    for function in (
        lambda x: (x.sin() * x.roll(1, 1)).sum(1),
        lambda x: x.relu().square().sum(1) + x.abs().amax(1),
        nn.Linear(3, 2).double(),
    ):
        asked = publication(function, derivatives=("jacobian", "hvp"))
        assert all(error < 1e-6 for error in differences.check(asked, describe(asked)).values())


def test_names_that_collide() -> None:
    asked = Publication(
        lambda c, b_c: (c * b_c, c),
        examples={"c": ROWS, "b_c": ROWS},
        outputs=("a_b", "a"),
        derivatives=("jacobian",),
    )
    spec = describe(asked)
    with pytest.raises(JobError, match="jacobian_a_b_c would stand for"):
        require_distinct([plan(name, spec) for name in ("value", "jacobian")])


def test_gradient_needs_one_number_a_row() -> None:
    spec = describe(publication(lambda x: x**2, derivatives=("gradient",)))
    with pytest.raises(Refusal, match=r"y \[3\].*ask for jacobian"):
        plan("gradient", spec)


def test_a_closure_keeps_its_modes() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).double()
    with constant_weights(lambda x: network(x)):  # noqa: PLW0108 — its closure is looked into
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    assert network[1].training
    assert all(p.requires_grad for p in network.parameters())


def test_weights_over_two_gibibytes(tmp_path: Path) -> None:
    with torch.device("meta"):
        huge = nn.Linear(30_000, 20_000)
    with pytest.raises(JobError, match=r"over 2 GiB: the weights take 2\.2 GiB"):
        publish(publication(huge), "huge", tmp_path)
    with pytest.raises(JobError, match=r"over 2 GiB: the weights take 2\.2 GiB"):
        publish(publication(lambda x: huge(x)), "huge", tmp_path)  # noqa: PLW0108


@pytest.mark.parametrize(
    ("text", "reference", "words"),
    [
        ("", "nowhere.py:build", "there is no such file"),
        ("", "file.txt:build", "such as surrogate.py:build"),
        ("def build(:", "file.py:build", "is not Python"),
        ("import nothing_like_it", "file.py:build", "can't be imported: ModuleNotFoundError"),
        ("x = 1", "file.py:build", r"has no function build\(\)"),
        ("def build(): return 1", "file.py:build", "should return a gradserve.Publication"),
        ("def build(): raise ValueError('no')", "file.py", "fails: ValueError: no"),
        ("def build(): exit(1)", "file.py", "fails: SystemExit: 1"),
        ("import sys; sys.exit(0)", "file.py", r"calls sys\.exit\(0\) when it is imported"),
        ("import training.nets", "file.py:build", "rename .*training to publish from here"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, text: str, reference: str, words: str) -> None:
    (tmp_path / "file.py").write_text(text)
    (tmp_path / "training").mkdir()
    with pytest.raises(JobError, match=words):
        source.load(str(tmp_path / reference))


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"# -*- coding: latin-1 -*-\n# \xe4\n"])
def test_a_file_in_another_encoding(tmp_path: Path, start: bytes) -> None:
    """Editors on Windows put a mark in front."""
    text = TEMPLATE.format(file="mine.py", model="mine")
    (tmp_path / "mine.py").write_bytes(start + text.encode())
    (tmp_path / "training").mkdir()
    assert source.load(str(tmp_path / "mine.py")).outputs


def test_the_template_and_what_lies_beside(tmp_path: Path) -> None:
    """A neighbour is imported; a folder called training is in nobody's way."""
    (tmp_path / "training").mkdir()
    (tmp_path / "beside.py").write_text("NAME = 'from beside'\n")
    text = TEMPLATE.format(file="mine.py", model="mine")
    (tmp_path / "mine.py").write_text(
        text.replace('"What it computes, in a sentence"', "beside.NAME").replace(
            "import torch\n", "import beside\nimport torch\n", 1
        )
    )
    found = source.load(str(tmp_path / "mine.py") + ":build")
    assert found.description == "from beside"
    assert found.derivatives == ("jacobian", "vjp", "jvp", "hvp")
