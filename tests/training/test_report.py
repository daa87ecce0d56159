"""Markdown and the plain files of an artifact."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

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
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_metrics(tmp_path, {"mse": float("nan")})
    report.write_samples(tmp_path, {"value.x": np.arange(3.0)})
    assert np.load(tmp_path / "samples.npz", allow_pickle=False)["value.x"].tolist() == [0, 1, 2]


def test_any_class_name_can_be_drawn(tmp_path: Path) -> None:
    """Formulas, other scripts, long ones: no error, and no warning of a missing letter."""
    classes = ("$\\frac$", "犬", "a" * 200, "two\nlines", "<b>x</b>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier_plots.draw_confusion(tmp_path / "c.png", classes, np.eye(5, dtype=int))
    assert (tmp_path / "c.png").stat().st_size > 1000
