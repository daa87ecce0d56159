"""Markdown and the plain files of an artifact."""

import json
import re
import warnings
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from contract.manifest import Agreement, Function, Graph, Tensor
from service.web.markdown import to_html
from training.errors import JobError
from training.publish import classifier_plots, report


def test_table() -> None:
    text = report.table(("name", "count"), [("a|b", 1234567), ("c", 2)])
    assert text.splitlines() == [
        "| name | count |",
        "| --- | ---: |",
        r"| a\|b | 1,234,567 |",
        "| c | 2 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.011156, "0.01116"), (12, "12"), (True, "True"), ("x", "x")]
)
def test_cell(value: object, shown: str) -> None:
    assert report.cell(value) == shown


STRANGE_NAMES = (
    *(
        "**bold**",
        "_x_",
        "my_class",
        "a|b",
        "\\\\|",
        "`code`",
        "```",
        "[a](b)",
        "![a](b)",
        "<b>x</b>",
    ),
    *(
        "&amp;",
        "&copy",
        "$x^2$",
        "~~no~~",
        "# head",
        "- list",
        "1. one",
        "> quote",
        "---",
        "http://x.y",
    ),
    *("犬", "🐶", "כלב", "<script>alert(1)</script>", "a\\", '"quoted"', "\\*", "é"),
)


def test_names_that_others_chose_are_shown_as_they_are() -> None:
    """In a page's table and in a sentence: no markup, nothing lost."""
    rows = [(number, report.literal(name)) for number, name in enumerate(STRANGE_NAMES)]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", to_html(report.table(("no.", "name"), rows)))
    assert [unescape(cell) for cell in cells[1::2]] == list(STRANGE_NAMES)
    sentence = f"Pairs: {', '.join(map(report.literal, STRANGE_NAMES))}."
    (shown,) = re.findall("<p>(.*?)</p>", to_html(sentence))
    assert unescape(shown) == f"Pairs: {', '.join(STRANGE_NAMES)}."
    for name in STRANGE_NAMES:
        (shown,) = re.findall("<code>(.*?)</code>", to_html(f"Run {report.code(name)} now."))
        assert unescape(shown) == name


def test_names_keep_to_one_line_of_bounded_length_and_direction() -> None:
    assert report.literal("two\nlines\t x") == "two lines x"
    assert report.literal("\u202egpj.exe\u202c") == "gpj.exe"
    assert report.literal("*" * 300) == r"\*" * 79 + "…"


def test_document_has_one_empty_line_between_parts() -> None:
    assert report.document("a\n", "", "\nb") == "a\n\nb\n"


def test_figures_are_saved_reproducibly(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with report.figure(tmp_path / name, columns=2) as (left, right):
            left.plot([1, 2], [3, 4])
            right.plot([1, 2], [4, 3])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_checkpoint_is_contiguous_and_complete(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network.to(memory_format=torch.channels_last)
    report.write_checkpoint(tmp_path, network)
    loaded = load_file(tmp_path / "checkpoint.safetensors")
    assert loaded.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded[name], tensor)


def test_plain_files(tmp_path: Path) -> None:
    report.write_history(tmp_path, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
    report.write_metrics(tmp_path, {"mse": 0.01})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mse": 0.01}
    counts = {"confusion": [[1, 0], [-2, 3e-9]], "words": "[1,  2]", "none": [], "two": ["1", "2"]}
    report.write_metrics(tmp_path, counts)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == counts
    assert "    [1, 0],\n    [-2, 3e-09]\n" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_metrics(tmp_path, {"mse": float("nan")})
    report.write_samples(tmp_path, {}, {"value.x": np.arange(3.0)})
    assert np.load(tmp_path / "samples.npz", allow_pickle=False)["value.x"].tolist() == [0, 1, 2]


def test_any_class_name_can_be_drawn(tmp_path: Path) -> None:
    """Formulas, other scripts, long ones: no error, and no warning of a missing letter."""
    classes = ("$\\frac$", "犬", "a" * 200, "two\nlines", "<b>x</b>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier_plots.draw_confusion(tmp_path / "c.png", classes, np.eye(5, dtype=int))
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_what_the_service_would_refuse_is_not_published(tmp_path: Path) -> None:
    """A tolerance of a tenth of the largest output proves nothing."""
    tensor = Tensor(name="y", dtype="float32", shape=("n",))
    agreement = Agreement(maximum_absolute_error=0, absolute_tolerance=1e-3, relative_tolerance=0)
    function = Function(
        inputs=(Tensor(name="x", dtype="float32", shape=("n",)),),
        outputs=(tensor,),
        graph=Graph(file="value.onnx", precision="fp32", agreement=agreement),
    )
    large, small = (np.full(2, size, np.float32) for size in (1.0, 0.01))
    report.write_samples(tmp_path, {"value": function}, {"value.x": large, "value.y": large})
    (tmp_path / "samples.npz").unlink()
    with pytest.raises(
        JobError, match=r"value, fp32: its tolerance .* the service would refuse it"
    ):
        report.write_samples(tmp_path, {"value": function}, {"value.x": small, "value.y": small})
    assert not (tmp_path / "samples.npz").exists()
