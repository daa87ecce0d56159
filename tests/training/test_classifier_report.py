"""The report of an image classifier, from the figures of a published one and from made-up ones."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.manifest import TrainedClassifierManifest
from contract.store import newest_good
from service.web.markdown import to_html
from service.web.rendered import MARKDOWN_BYTES
from training.publish import classifier_report

COMMITTED = Path(__file__).parents[2] / "artifacts"
HISTORY = [
    {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1 / epoch, "validation_top1": 0.5,
     "validation_top5": 0.9, "train_top1": 0.5}
    for epoch in (1, 2)
]  # fmt: skip


@pytest.fixture(scope="module")
def published() -> tuple[TrainedClassifierManifest, dict[str, Any]]:
    """A manifest and its metrics, measured on the test images too."""
    artifact, _ = newest_good(COMMITTED, "cifar-improved")
    manifest = TrainedClassifierManifest.model_validate(artifact.manifest.model_dump())
    return manifest, json.loads(artifact.read("metrics.json"))


def written(
    folder: Path, manifest: TrainedClassifierManifest, metrics: dict[str, Any], **changes: Any
) -> str:
    """The text of the report of ``manifest`` with ``changes``."""
    classifier_report.write(folder, manifest.model_copy(update=changes), metrics, HISTORY)
    return (folder / "report.md").read_text()


def with_validation(manifest: TrainedClassifierManifest, images: int) -> dict[str, Any]:
    splits = manifest.data.splits | {"validation": images}
    return {"data": manifest.data.model_copy(update={"splits": splits})}


def test_what_was_not_calibrated_has_no_figures_of_before_and_after(
    tmp_path: Path, published: tuple[TrainedClassifierManifest, dict[str, Any]]
) -> None:
    manifest, metrics = published
    text = written(tmp_path, manifest, metrics, **with_validation(manifest, 49))
    assert "Not done: 49 validation images are too few" in text
    assert "reliability" not in text and not (tmp_path / "reliability.png").exists()
    assert f"| test | {metrics['scores']['test']['loss']:.4f} |" in text
    assert "| before |" not in text
    text = written(tmp_path, manifest, metrics, **with_validation(manifest, 50))
    assert "fitted on the 50 validation images" in text
    assert "(reliability.png)" in text and (tmp_path / "reliability.png").exists()
    assert "| test | before |" in text and "| test | after |" in text


def test_a_thousand_classes_of_any_names(
    tmp_path: Path, published: tuple[TrainedClassifierManifest, dict[str, Any]]
) -> None:
    """The page stays one that the service lays out, with the classes that need a look."""
    manifest, metrics = published
    names = [
        "a|b",
        "<b>",
        "two\nlines",
        "*x*",
        "[x](y)",
        "$a$",
        "🐶",
        "כלב",
        "\u202egpj",
        "w" * 250,
    ]
    shown = ["a|b", "<b>", "two lines", "*x*", "[x](y)", "$a$", "🐶", "כלב", "gpj", "w" * 79 + "…"]
    names += [f"class {number}" for number in range(len(names), 1000)]
    confusion = 9 * np.eye(1000, dtype=int) + np.eye(1000, k=1, dtype=int)
    confusion[:10] = np.eye(1000, k=1, dtype=int)[:10]  # always taken for the next one
    text = written(
        tmp_path, manifest, metrics | {"confusion": confusion.tolist()}, classes=tuple(names)
    )
    assert len(text) < MARKDOWN_BYTES
    page = to_html(text.split("## By class")[1].split("## Calibration")[0])
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)[1:]
    cells = [[unescape(cell) for cell in re.findall("<td[^>]*>(.*?)</td>", row)] for row in rows]
    assert len(cells) == classifier_report.MOST_CLASSES == 100
    assert [row[1] for row in cells[:10]] == shown
    assert [row[4] for row in cells[:9]] == shown[1:]
    assert "The table has the 100 classes of least accuracy" in page
    assert f"{shown[0]} and &lt;b&gt; (1)" in page
    assert "Guessing would give a top-1 of 0.1% and a top-5 of 0.5%." in text
    longest = tuple("*" * 99 + str(number) for number in range(1000))
    text = written(tmp_path, manifest, metrics | {"confusion": confusion.tolist()}, classes=longest)
    assert len(text) < MARKDOWN_BYTES


@pytest.mark.parametrize("classes", [3, 5, 6])
def test_top_5_is_shown_of_more_than_five_classes(
    tmp_path: Path, published: tuple[TrainedClassifierManifest, dict[str, Any]], classes: int
) -> None:
    manifest, metrics = published
    names = tuple(f"class {number}" for number in range(classes))
    confusion = np.ones((classes, classes), int)
    text = written(tmp_path, manifest, metrics | {"confusion": confusion.tolist()}, classes=names)
    assert ("top-5" in text.split("## Learning curves")[0]) == (classes > 5)
    assert "(2)" in text  # both ways together


def test_the_mean_over_classes_stands_beside_the_top_1(
    tmp_path: Path, published: tuple[TrainedClassifierManifest, dict[str, Any]]
) -> None:
    manifest, metrics = published
    scores = {name: each | {"balanced": 0.4321} for name, each in metrics["scores"].items()}
    text = written(tmp_path, manifest, metrics | {"scores": scores})
    assert text.split("## ")[0].count("| 43.21% |") == len(scores)
    assert "| mean over classes |" in text


def test_a_low_top_1_of_mixed_images_is_explained(
    tmp_path: Path, published: tuple[TrainedClassifierManifest, dict[str, Any]]
) -> None:
    manifest, metrics = published

    def training(share: float) -> dict[str, Any]:
        config = manifest.training.config | {"cutmix": share}
        return {"training": manifest.training.model_copy(update={"config": config})}

    text = written(tmp_path, manifest, metrics, **training(0.25))
    assert "In 25% of the batches a rectangle of another image" in text
    assert "rectangle" not in written(tmp_path, manifest, metrics, **training(0.0))
