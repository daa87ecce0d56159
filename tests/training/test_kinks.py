"""Examples at a kink are left out of the comparison of a graph with PyTorch; no others are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradserve import Publication
from training.functions import checks
from training.functions.exported import export_plan
from training.functions.function_spec import describe
from training.functions.kinks import away_from_kinks, beside
from training.functions.plans import plan
from training.functions.refusal import Refusal

ROWS = torch.linspace(-1.7, 1.9, 8).unsqueeze(1)
NEARLY_ZERO = 1e-8  # rounding may put it on either side


def slope(inputs: list[Tensor]) -> list[Tensor]:
    return [torch.where(inputs[0] > 0, 5.0, inputs[0].sin())]


def test_rows_where_the_derivative_jumps() -> None:
    rows = ROWS.clone()
    rows[2], rows[5] = NEARLY_ZERO, -NEARLY_ZERO
    kept = away_from_kinks(slope, [rows], 8, [0], 1e-5)
    assert kept.tolist() == [0, 1, 3, 4, 6, 7]


def test_smooth_rows_are_kept_however_steep() -> None:
    kept = away_from_kinks(lambda inputs: [(3 * inputs[0]).exp()], [ROWS], 8, [0], 1e-5)
    assert kept.tolist() == list(range(8))


def relu_slope(rows: Tensor, folder: Path) -> checks.CheckResult:
    asked = Publication(lambda x: x.relu().square() + x.relu(), {"x": rows}, ("y",), ("vjp",))
    return export_plan(plan("vjp", describe(asked)), asked.inputs, folder).checked


def test_all_are_compared_where_hardly_any_is_left(tmp_path: Path) -> None:
    rows = torch.full((8, 1), 0.0)
    rows[3] = 1.0
    checked = relu_slope(rows, tmp_path)
    assert checked.left_out == 0
    assert len(checked.samples["vjp.x"]) == 8


def test_integers_are_not_moved_but_pixels_are() -> None:
    image = torch.full((8, 1), 3, dtype=torch.uint8)

    def picked(inputs: list[Tensor]) -> list[Tensor]:
        image, label = inputs
        assert label.dtype == torch.int64
        return [torch.where(image.float() > 3 + torch.tensor([0.0, 9]).repeat(4)[:, None], 1.0, 2)]

    kept = away_from_kinks(picked, [image, torch.arange(8)], 8, [0], 1e-5)
    assert kept.tolist() == [1, 3, 5, 7]


def test_a_publication_leaves_them_out_of_its_samples(tmp_path: Path) -> None:
    rows = ROWS.clone()
    rows[2] = NEARLY_ZERO
    checked = relu_slope(rows, tmp_path)
    assert checked.left_out == 1
    assert checked.samples["vjp.x"].ravel().tolist() == [*rows[:2, 0], *rows[3:, 0]]
    assert checked.relative_error < checks.RELATIVE[torch.float32]


def test_more_examples_are_looked_at_where_many_are_at_a_kink(tmp_path: Path) -> None:
    rows = torch.full((24, 1), NEARLY_ZERO)
    rows[0], rows[10], rows[18] = 1.0, -2.0, 0.5
    checked = relu_slope(rows, tmp_path)
    assert checked.samples["vjp.x"].ravel().tolist() == [1.0, -2.0, 0.5]


def test_examples_that_the_size_of_the_batch_puts_on_the_other_side(tmp_path: Path) -> None:
    """PyTorch convolves 64 pictures in another way than 8, and rounds otherwise."""
    rows = ROWS.clone()
    rows[5] = 1.0
    sixty_four = 64

    def kinked(x: Tensor) -> Tensor:
        return (x - 1 + 1e-3).relu()  # of which no tiny move crosses the threshold

    asked = Publication(kinked, {"x": rows}, ("y",), ("vjp",))
    exact = plan("vjp", describe(asked))

    def rounded(inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        moved = torch.where(inputs[0] == 1.0, 0.9, inputs[0])
        return exact.reference([moved if len(moved) == sixty_four else inputs[0]], vectors)

    checked = export_plan(replace(exact, reference=rounded), asked.inputs, tmp_path).checked
    assert checked.left_out == 1
    assert 1.0 not in checked.samples["vjp.x"]
    wrong = replace(exact, reference=lambda x, v: [2 * y for y in exact.reference(x, v)])
    with pytest.raises(Refusal, match="the graph disagrees"):
        export_plan(wrong, asked.inputs, tmp_path)


def test_what_pytorch_gives_just_beside_is_told_from_what_it_gives_nowhere_near() -> None:
    rows = torch.tensor([[1.0], [NEARLY_ZERO], [NEARLY_ZERO], [-1.0]])
    found = torch.where(rows > 0, 5.0, rows.sin())
    found[1], found[2], found[3] = 0.0, 2.5, 5.0
    assert beside(slope, [rows], [found], [1e-5]).tolist() == [True, True, False, False]


def test_examples_that_the_graph_alone_puts_on_the_other_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a deep network's many units, moves may miss the one that another rounding crosses."""
    monkeypatch.setattr(checks, "away_from_kinks", lambda *_: torch.arange(len(ROWS)))
    rows = ROWS.clone()
    rows[2] = NEARLY_ZERO
    asked = Publication(lambda x: x.relu().square() + x.relu(), {"x": rows}, ("y",), ("vjp",))
    exact = plan("vjp", describe(asked))

    def rounded(inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        return exact.reference([inputs[0] - 2 * NEARLY_ZERO], vectors)

    checked = export_plan(replace(exact, reference=rounded), asked.inputs, tmp_path).checked
    assert checked.left_out == 1
    assert NEARLY_ZERO not in checked.samples["vjp.x"]
