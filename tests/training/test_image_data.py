"""Reading pictures sorted by class from folders and zips."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contract.pictures import decode, open_image
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
    assert len(load_images(folder).unreadable) == 1  # one alone never stops a small set
    (folder / "b" / "broken2.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(JobError, match=r"2 of 42 files.*b/broken\.jpg"):
        load_images(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere", "no such folder or zip"),
        (
            lambda p: (p / "x.zip").write_text("no") and p / "x.zip",
            "neither a folder nor a zip; unpack it",
        ),
        (lambda p: tree(p / "one", {"only": 5}), "1 class was found"),
        (lambda p: (tree(p / "e", {"a": 5, "b": 5}) / "empty").mkdir() or p / "e", "class empty"),
        (lambda p: tree(p / "few", {"a": 1, "b": 1}), "too few pictures"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_images(make(tmp_path))  # type: ignore[operator]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_training_sees_what_the_service_sees(mode: str, tmp_path: Path) -> None:
    """Each mode, turned by EXIF, not square, enlarged and reduced: the very same pixels."""
    values = np.random.default_rng(5).integers(0, 256, (21, 90, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    else:
        image = Image.fromarray(values).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    ending = "jpg" if mode == "CMYK" else "png"
    for number, label in enumerate("aabbabab"):
        (tmp_path / label).mkdir(exist_ok=True)
        wide = image.resize((90 + 10 * number, 21))
        wide.save(tmp_path / label / f"{number}.{ending}", exif=exif)
    for resize in ("crop", "pad", "squash"):
        data = load_images(tmp_path, resize=resize)
        trained = {
            picture.numpy().transpose(1, 2, 0).tobytes()
            for split in (data.train, data.validation, data.test)
            for picture in split.images
        }
        served = {
            decode(open_image(path.read_bytes(), 10**6, 10**4), 32, resize).pixels.tobytes()
            for path in tmp_path.rglob(f"*.{ending}")
        }
        assert trained == served


def test_a_16_bit_tiff_is_trained_on_as_the_same_png(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((32, 32), 200 * 257, np.uint16))
    deep.save(tmp_path / "deep.tiff")
    assert (to_square((tmp_path / "deep.tiff").read_bytes(), 32) == 200).all()


@pytest.mark.parametrize(
    ("shorter", "side"), [(20, 32), (32, 32), (33, 64), (120, 128), (900, 224)]
)
def test_the_side_holds_the_median_picture(shorter: int, side: int, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(5):
            picture(index, (shorter + 60, shorter)).save(tmp_path / label / f"{index}.png")
    assert load_images(tmp_path).train.images.shape[2:] == (side, side)
    assert load_images(tmp_path, side=64).train.images.shape[2:] == (64, 64)


def test_other_files_are_counted_by_kind(tmp_path: Path) -> None:
    folder = tree(tmp_path / "d", {"a": 6, "b": 6})
    picture(1).save(folder / "a" / "no-ending", "PNG")
    picture(2).save(folder / "b" / "x.jfif", "JPEG")
    (folder / "a" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "a" / "also.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "b" / "notes.txt").write_text("hello")
    (folder / "b" / "Thumbs.db").write_text("x")
    (folder / "b" / "._x.png").write_text("x")
    (folder / "b" / "deeper").mkdir()
    picture(3).save(folder / "b" / "deeper" / "y.png")
    (folder / "readme.md").write_text("x")
    data = load_images(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 14
    assert not data.unreadable
    assert dict(data.left_out) == {
        "HEIC (save them as JPEG)": 2,
        ".txt files": 1,
        "in folders below a class's": 1,
        "beside the classes' folders": 1,
    }


def test_a_class_of_other_files_says_which(tmp_path: Path) -> None:
    """A phone's pictures, all of them HEIC whatever they are called."""
    folder = tree(tmp_path / "d", {"a": 6})
    (folder / "b").mkdir()
    for name in ("1.HEIC", "2.jpg"):
        (folder / "b" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (folder / "b" / "raw.NEF").write_bytes(b"MM\0*\0\0\0\x08" + bytes(60))
    (folder / "b" / "more.zip").write_bytes(b"PK")
    message = (
        r"class b has no readable picture; left out: 2 HEIC \(save them as JPEG\); "
        r"left out: 1 zips \(unpack them\); left out: 1 raw photos \(save them as JPEG\)"
    )
    with pytest.raises(JobError, match=message):
        load_images(folder)
    (folder / "b" / "x.tiff").write_bytes(b"MM\0*\0\0\0\x08" + bytes(60))
    with pytest.raises(JobError, match=r"; not readable: b/x\.tiff: This TIFF or PPM is of a kind"):
        load_images(folder)
    picture(7).save(folder / "b" / "y.tiff")
    assert load_images(folder).unreadable == (
        "b/x.tiff: This TIFF or PPM is of a kind that is not read",
    )


def test_classes_that_may_not_be_meant_so_are_named(tmp_path: Path) -> None:
    data = load_images(tree(tmp_path, {"Cat": 10, "c at": 10, "dog": 1, "eel": 2}))
    assert data.warnings() == [
        "warning: Cat, c at are 2 classes, whose names differ in capital letters or blanks only",
        "warning: there is no picture for validation of dog, eel",
        "warning: there is no picture for the test of dog",
    ]


def test_a_validation_folder_is_used_as_it_is(tmp_path: Path) -> None:
    tree(tmp_path / "Training_Set", {"a": 10, "b": 10})
    tree(tmp_path / "Val", {"a": 2, "b": 1})
    data = load_images(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 3, 2)
    with pytest.raises(JobError, match="validation folder"):
        load_images(tmp_path, validation=4)


def test_copies_are_counted_and_named(tmp_path: Path) -> None:
    """By their pixels: in several splits, in training, in several classes."""
    tree(tmp_path / "train", {"a": 20, "b": 20})
    tree(tmp_path / "val", {"a": 2, "b": 2})
    tree(tmp_path / "test", {"a": 3, "b": 3})
    for split in ("val", "test"):  # pictures of their own,
        for path in (tmp_path / split).rglob("*.png"):
            picture(int(path.stem) + 10_000 * (1 + ord(split[0]) + ord(path.parent.name))).save(
                path
            )
    assert load_images(tmp_path).copies == ()
    picture(3).save(tmp_path / "train" / "a" / "again.bmp")
    picture(4).save(tmp_path / "test" / "a" / "trained on.png")
    picture(5).save(tmp_path / "train" / "b" / "torn.png")
    picture(6).save(tmp_path / "val" / "a" / "x.png")
    picture(6).save(tmp_path / "val" / "a" / "y.png")
    assert load_images(tmp_path).copies == (
        ("pictures that are in more than one class: 1", "train/a/5.png and train/b/torn.png"),
        (
            "pictures for test that are among those for training too: 1 of 7, so that the test "
            "figures are too good",
            "test/a/trained on.png and train/a/4.png",
        ),
        (
            "pictures for validation that are among those for training too: 2 of 6, so that the "
            "validation figures are too good",
            "train/a/6.png and val/a/x.png",
        ),
        (
            "pictures for training that are copies of others: 2",
            "train/a/5.png and train/b/torn.png",
        ),
    )
