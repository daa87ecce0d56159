"""The shapes in which folders and zips of pictures come."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.images import load_images
from training.data.tree import find, split_of
from training.errors import JobError

TWO = ("cat", "dog")


def png(seed: int, folder: Path) -> bytes:
    path = folder / "made.png"
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path.read_bytes()


def zipped(folder: Path, names: list[str], *more: str) -> Path:
    """A zip with a picture under each name, and other files under ``more``."""
    archive = folder / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for seed, name in enumerate(names):
            out.writestr(name, png(seed, folder))
        for name in more:
            out.writestr(name, b"junk")
    return archive


def members(*labels: str, above: str = "", count: int = 4) -> list[str]:
    return [f"{above}{label}/{index}.png" for label in labels for index in range(count)]


def test_what_other_programs_leave_is_no_class_and_no_picture(tmp_path: Path) -> None:
    junk = (
        *("__MACOSX/cat/._0.png", "cat/.DS_Store", "cat/._0.png", "dog/desktop.ini", "Thumbs.db"),
        *(".ipynb_checkpoints/cat/0.png", ".ipynb_checkpoints/x.png", "@eaDir/a/b.jpg"),
    )
    for above in ("", "my pictures/", "a/b/"):
        names = members(*TWO, above=above)
        tree = find(zipped(tmp_path, names, *junk, f"{above}readme.txt"))
        assert tree.classes == {"train": set(TWO)}, above
        assert len(tree.members) == 8
        assert sum(tree.left_out.values()) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("TRAINING", "valid"),
        ("train data", "Validation"),
        ("Train Images", "test-images"),
    ],
)
def test_splits_in_the_usual_spellings(names: tuple[str, str], tmp_path: Path) -> None:
    first, second = (members(*TWO, above=f"{name}/") for name in names)
    tree = find(zipped(tmp_path, first + second + ["extra/x/0.png"]))
    assert tree.classes == {"train": set(TWO), split_of(names[1]): set(TWO)}
    assert dict(tree.left_out) == {"in extra/, which is neither train, val nor test": 1}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert find(zipped(tmp_path, members("train", "car"))).classes == {"train": {"train", "car"}}
    inside = members("train", "car", above="train/")
    assert find(zipped(tmp_path, inside)).classes == {"train": {"train", "car"}}


def test_classes_that_training_lacks_are_left_out(tmp_path: Path) -> None:
    names = members(*TWO, above="train/") + members("cow", above="test/")
    assert dict(find(zipped(tmp_path, names)).left_out) == {
        "in test/ of classes that train/ lacks": 4
    }


def test_a_class_that_holds_only_folders_stops_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"class folder dog holds only folders, such as poodle"):
        find(zipped(tmp_path, members("cat", "dog/poodle", "dog/pug")))


def test_backslashes_are_slashes_and_nothing_leads_out(tmp_path: Path) -> None:
    names = [name.replace("/", "\\") for name in members(*TWO, above="p/")]
    assert find(zipped(tmp_path, names)).classes == {"train": set(TWO)}
    away = find(zipped(tmp_path, members("../cat", "/dog")))
    assert away.classes == {"train": set(TWO)}


@pytest.mark.parametrize(
    ("encoding", "label", "found", "option"),
    [
        ("utf-8", "café", "café", None),
        ("utf-8", "犬", "犬", None),
        ("utf-8", "cafe\u0301", "café", None),  # as a Mac writes it
        ("cp437", "café", "café", None),
        ("cp1252", "grün", "grün", None),
        ("cp1252", "Dvořák".replace("ř", "r"), "Dvorák", "cp1252"),
        ("cp932", "犬", "犬", "cp932"),
    ],
)
def test_names_of_a_zip_without_the_utf8_flag(
    encoding: str, label: str, found: str, option: str | None, tmp_path: Path
) -> None:
    raw = label.encode(encoding)
    stand_in = "x" * len(raw)
    archive = zipped(tmp_path, members(stand_in, "dog"))
    archive.write_bytes(archive.read_bytes().replace(stand_in.encode(), raw))
    assert find(archive, option).classes["train"] == {found, "dog"}
    with pytest.raises(JobError, match="there is no such encoding"):
        find(archive, "klingon")


def spoiled(archive: Path, method: int | None = None, encrypted: bool = False) -> Path:
    """The same with another method of compression, or marked as encrypted, in every header."""
    content = bytearray(archive.read_bytes())
    for signature, flags, at in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):
        start = content.find(signature)
        while start >= 0:
            if encrypted:
                content[start + flags] |= 1
            if method is not None:
                content[start + at : start + at + 2] = struct.pack("<H", method)
            start = content.find(signature, start + 4)
    archive.write_bytes(content)
    return archive


def test_what_a_zip_hides_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="encrypted; unpack it"):
        load_images(spoiled(zipped(tmp_path, members(*TWO)), encrypted=True))
    with pytest.raises(JobError, match=r"8 of 8 files.*method 9, which is not read; zip it anew"):
        load_images(spoiled(zipped(tmp_path, members(*TWO)), method=9))
    archive = zipped(tmp_path, members(*TWO))
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF  # one member's checksum is wrong
    archive.write_bytes(content)
    assert load_images(archive).unreadable == ("cat/0.png: damaged in the zip",)
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(JobError, match="neither a folder nor a zip"):
        load_images(archive)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (members("Cat", "cat", "dog"), {"Cat", "cat", "dog"}),
        (members("C:\\me\\cat", "C:\\me\\dog"), set(TWO)),
        (members(*TWO, above="train/") + members(*TWO, above="training/"), set(TWO)),
        (members(*TWO, above="a/b/c/train/") + members(*TWO, above="a/b/c/val/"), set(TWO)),
        (members("ca\nt", "🐶"), {"ca\nt", "🐶"}),
        (members("0", "1", "10"), {"0", "1", "10"}),
        ([*members(*TWO), "cat"], set(TWO)),  # a folder and a file of one name
        (["cat", *members(*TWO)], set(TWO)),
    ],
)
def test_strange_zips_that_are_read(names: list[str], classes: set[str], tmp_path: Path) -> None:
    data = load_images(zipped(tmp_path, names))
    assert set(data.classes) == classes
    pictures = sum(name not in TWO for name in names)
    assert len(data.train) + len(data.validation) + len(data.test) == pictures
    assert data.unreadable == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 classes were found"),
        (["0.png", "1.png"], "0 classes were found.*; left out: 2 beside the classes' folders"),
        (
            ["cat.zip", "dog.zip"],
            r"0 classes.*left out: 2 zips \(unpack them\) beside the classes' folders",
        ),
        (members("images"), "1 class was found"),
        (members("cat/train", "dog/train"), "class folder cat holds only folders, such as train"),
        (
            members(*TWO, above="Trainingsdaten/") + members(*TWO, above="Testdaten/"),
            "folder Testdaten holds only folders, such as cat;.*are called train/, val/ and test/",
        ),
        (
            [*members(*TWO, above="all/"), "LICENSE"],
            "all holds only folders.*if its folders are the classes, take away .*: LICENSE",
        ),
        (members("Test", "train"), r"Test/ and train/ hold pictures themselves; .*train/<class>"),
        (
            [*members(*TWO, above="train/"), "train/overview.png", *members(*TWO, above="val/")],
            r"train/ holds files, such as overview.png, and folders with files, such as cat/; if",
        ),
        (members(*TWO, above="test/"), "there is test/ with folders in it, and no train/"),
        (members(*TWO, above="p/Val/"), "there is Val/ with folders in it, and no train/"),
        ([*members(*TWO), "cow/"], "class cow has no readable picture"),
    ],
)
def test_strange_zips_that_end_in_a_sentence(
    names: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=message):
        load_images(zipped(tmp_path, names))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_as_other_programs_write_them(method: int, tmp_path: Path) -> None:
    """Other methods, entries for large files, a comment, a program that unpacks it before it."""
    archive = tmp_path / "pictures.exe"
    with zipfile.ZipFile(archive, "w", method) as out:
        out.comment = b"x" * 60_000
        for seed, name in enumerate(members(*TWO)):
            with out.open(name, "w", force_zip64=True) as stream:
                stream.write(png(seed, tmp_path))
    archive.write_bytes(b"MZ" + bytes(5000) + archive.read_bytes())
    data = load_images(archive)
    assert (data.classes, data.unreadable) == (TWO, ())
    assert len(data.train) + len(data.validation) + len(data.test) == 8


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_that_comes_twice_is_counted_and_named(tmp_path: Path) -> None:
    """In a zip that was added to, and on a disk where accents are written in two ways."""
    tree = find(zipped(tmp_path, [*members(*TWO), "cat/0.png", "dog/1.png"]))
    assert len(tree.members) == 8
    assert tree.left_out == {
        "of a path that another one has too (the last is read), such as cat/0.png": 2
    }
    composed, apart = "caf\u00e9.png", "cafe\u0301.png"
    for label in TWO:
        for name in (composed, apart):
            (tmp_path / "p" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / label / name).write_bytes(png(len(name), tmp_path))
    tree = find(tmp_path / "p")
    assert len(tree.members) == 2
    assert list(tree.left_out.values()) == [2]


def test_what_is_no_picture_in_a_folder_of_pictures_is_skipped(tmp_path: Path) -> None:
    for label in TWO:
        (tmp_path / label).mkdir()
        for seed in range(4):
            (tmp_path / label / f"{seed}.png").write_bytes(png(seed, tmp_path))
    (tmp_path / "made.png").unlink()
    strange = tmp_path / "cat" / "strange.png"
    for make, message in (
        (lambda: os.mkfifo(strange), "not a plain file"),
        (lambda: strange.symlink_to("/dev/zero"), "not a plain file"),
        (lambda: strange.write_bytes(b""), "The file is empty"),
        (lambda: strange.write_bytes(b"<html>not found</html>"), "not an image"),
    ):
        make()
        (found,) = load_images(tmp_path).unreadable
        assert found.startswith("cat/strange.png: ") and message in found
        strange.unlink()


def test_links_that_go_round_end(tmp_path: Path) -> None:
    for label in TWO:
        (tmp_path / label).mkdir()
        for seed in range(4):
            (tmp_path / label / f"{seed}.png").write_bytes(png(seed, tmp_path))
    (tmp_path / "made.png").unlink()
    (tmp_path / "cat" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    tree = find(tmp_path)
    assert len(tree.members) == 9
    assert load_images(tmp_path).unreadable == (
        "dog/gone.png: not a plain file, or a link to nowhere",
    )
