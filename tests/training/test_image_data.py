"""Reading pictures sorted by class from folders and zips."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.images import load_images, to_square
from training.errors import JobError


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


def tree(folder: Path, counts: dict[str, int], ending: str = "png") -> Path:
    """A folder with so many different pictures in each class."""
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            picture(1000 * number + index).save(folder / label / f"{index}.{ending}")
    return folder


def test_a_plain_folder_is_split_into_three_with_every_class_in_train(tmp_path: Path) -> None:
    data = load_images(tree(tmp_path, {"cat": 30, "dog": 50, "rare": 2}))
    assert data.classes == ("cat", "dog", "rare")
    assert len(data.train) + len(data.validation) + len(data.test) == 82
    assert set(data.train.labels.tolist()) == {0, 1, 2}
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.train.images.dtype == torch.uint8


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"a": 20, "b": 20})
    tree(tmp_path / "test", {"a": 3, "b": 4})
    data = load_images(tmp_path)
    assert len(data.test) == 7
    assert len(data.validation) == 4
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_a_zip_and_other_file_names_give_the_same_data(tmp_path: Path) -> None:
    folder = tree(tmp_path / "pictures", {"a": 12, "b": 12})
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            out.write(path, f"{path.parent.name}/renamed-{path.name}")
    first, second = load_images(folder), load_images(archive)
    assert first.sha256 == second.sha256
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)


def test_no_image_is_in_two_splits(tmp_path: Path) -> None:
    data = load_images(tree(tmp_path, {"a": 40, "b": 40}))
    rows = [
        bytes(image.numpy().tobytes())
        for split in (data.train, data.validation, data.test)
        for image in split.images
    ]
    assert len(set(rows)) == len(rows) == 80


def test_another_split_seed_sets_other_images_aside(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"a": 40, "b": 40})
    first, second = load_images(folder, split_seed=0), load_images(folder, split_seed=1)
    assert first.sha256 == second.sha256
    assert not torch.equal(first.test.images, second.test.images)


def test_as_many_as_wanted_are_set_aside_of_the_same(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"a": 40, "b": 80})
    usual, fewer = load_images(folder), load_images(folder, validation=6)
    assert (len(usual.validation), len(fewer.validation), len(fewer.train)) == (11, 6, 102)
    assert fewer.validation.labels.tolist() == [0, 0, 1, 1, 1, 1]
    usual_rows = {image.numpy().tobytes() for image in usual.validation.images}
    assert {image.numpy().tobytes() for image in fewer.validation.images} < usual_rows
    assert torch.equal(usual.test.images, fewer.test.images)


@pytest.mark.parametrize("rows", [0, -1, 55, 10**9])
def test_no_more_than_half_is_set_aside(tmp_path: Path, rows: int) -> None:
    with pytest.raises(JobError, match="from 1 to 54 of its 108 images can be set aside"):
        load_images(tree(tmp_path, {"a": 40, "b": 80}), validation=rows)


def test_one_unreadable_file_in_many_is_named_and_skipped(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"a": 60, "b": 60})
    (folder / "a" / "broken.png").write_bytes(b"not a picture")
    data = load_images(folder)
    assert len(data.unreadable) == 1
    assert data.unreadable[0].startswith("a/broken.png: ")


def test_more_than_a_hundredth_unreadable_fails(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"a": 20, "b": 20})
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(JobError, match=r"1 of 41 files.*b/broken\.jpg"):
        load_images(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "no such folder or zip"),
        (lambda p: (p / "x.zip").write_text("no") and p / "x.zip", "neither a folder nor a zip"),
        (lambda p: tree(p / "one", {"only": 5}), "1 classes were found"),
        (lambda p: (tree(p / "e", {"a": 5, "b": 5}) / "empty").mkdir() or p / "e", "class empty"),
        (lambda p: tree(p / "few", {"a": 1, "b": 1}), "too few pictures"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_images(make(tmp_path))  # type: ignore[operator]


def test_pictures_are_turned_flattened_and_cropped() -> None:
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (0, 0, 16, 32))  # outside the central square
    assert (to_square(wide) == (255, 0, 0)).all()
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert (to_square(clear) == 255).all()
    turned = Image.new("RGB", (32, 32), "black")
    turned.paste("white", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.info["exif"] = exif.tobytes()
    turned.getexif().load(exif.tobytes())
    assert to_square(turned)[:16].max() == 0
    deep = Image.fromarray(np.full((32, 32), 65535, np.uint16))
    assert (to_square(deep) == 255).all()
