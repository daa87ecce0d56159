"""A map of the network passes its checks; one that has nothing to do with it doesn't."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.publish.derivatives import frozen, saliency
from training.publish.saliency_checks import SaliencyFigures, check, rank_correlation

SIDE, SQUARE = 16, 3  # pixels; blurred, so small a square is gone


def pictures(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """A square of red or blue somewhere on noise, uint8 [rows, SIDE, SIDE, 3], and which."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(60, 196, (rows, SIDE, SIDE, 3), generator=generator)
    labels = torch.arange(rows) % 2
    for image, label in zip(images, labels, strict=True):
        top, left = torch.randint(0, SIDE - SQUARE, (2,), generator=generator)
        square = image[top : top + SQUARE, left : left + SQUARE]
        square[:, :, 2 * int(label)] = 255
        square[:, :, 2 - 2 * int(label)] = 0
    return images.to(torch.uint8), labels


def prepare(image: Tensor) -> Tensor:
    return (image.permute(0, 3, 1, 2).float() - 128) / 64


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1), nn.GELU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip
    images, labels = pictures(256, 0)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(made(prepare(images)), labels).backward()
        optimizer.step()
    assert (made(prepare(images)).argmax(1) == labels).float().mean() > 0.95
    return frozen(made)


def edges(_: nn.Module) -> object:
    def detect(image: Tensor, __: Tensor) -> Tensor:
        x = prepare(image)
        across = functional.pad(x.diff(dim=3), (0, 1)) ** 2
        down = functional.pad(x.diff(dim=2), (0, 0, 0, 1)) ** 2
        return (across + down).sum(1).sqrt()

    return detect


def checked(network: nn.Module, maps: object, *, integrated: bool) -> SaliencyFigures:
    return check(network, prepare, maps, pictures(32, 1)[0], integrated=integrated)  # type: ignore[arg-type]


def test_a_map_of_the_network_passes(network: nn.Module) -> None:
    found = checked(
        network, lambda each: saliency(each, prepare, method="integrated"), integrated=True
    )
    assert found.failures() == []
    assert found.gap is not None and found.gap < 0.01
    assert found.served_gap is not None and found.served_gap > found.gap
    assert found.squares_judged
    assert found.as_metrics()["failures"] == []


def test_an_edge_detector_fails(network: nn.Module) -> None:
    found = checked(network, edges, integrated=False)
    assert found.correlation[-1] == pytest.approx(1)
    assert "hardly depends on the weights" in found.failures()[0]


def test_a_map_that_points_away_from_the_reason_fails(network: nn.Module) -> None:
    def inverted(each: nn.Module) -> object:
        explain = saliency(each, prepare, method="integrated")
        return lambda image, label: 1 / (1e-6 + explain(image, label))

    text = " ".join(checked(network, inverted, integrated=True).failures())
    for words in ("full integral", "deleting", "inserting"):
        assert words in text


def test_rank_correlation() -> None:
    first = torch.arange(12.0).reshape(1, 3, 4)
    assert rank_correlation(first, first.exp()) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert rank_correlation(first, torch.ones(1, 3, 4)) == 0
