"""Images for a classifier: CIFAR-10, or any folder or zip of pictures sorted by class.

``training.data.tree`` says which trees are accepted. Pictures are decoded by ``contract.pictures``,
as the service does it: what training sees is what the service will see. Where there is no test set,
a tenth of each class is set aside as one; likewise for validation.
"""

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from contract.errors import PictureDamaged, PictureError, PictureUnsupported
from contract.pictures import Header, decode, open_image
from contract.pixels import Resize
from training.data.tree import Member, Tree, Unreadable, find
from training.errors import JobError
from training.progress import told

SIDES = (32, 64, 96, 128, 224)  # pixels; what the networks are made for
SIDE = SIDES[0]
DOWNLOADED = "CIFAR-10"
VALIDATION_ROWS = 5000
HELD_OUT = 0.1
UNREADABLE_LIMIT = 0.01
MIN_CLASSES, MAX_CLASSES = 2, 1000
LARGEST_PIXELS, LARGEST_SIDE_OF_FILE = 200_000_000, 65_535
SAMPLED_FILES = 400  # of which the median size is taken
SHOWN = 5  # classes in a message
# Of cameras. Many are TIFF files in form, with a small preview as their first picture.
RAW_ENDINGS = {".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"}
RAW = "raw photos (save them as JPEG)"
PICTURE_ENDINGS = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".mpo", ".ppm", ".pgm"),
    *(".tif", ".tiff"),
}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """Images uint8 [n, 3, h, w] and labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """The same split on another device."""
        return Split(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """All splits of a data set. ``unreadable`` names the files that were skipped, and why;
    ``left_out`` counts by kind those that are no pictures of a class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    sha256: str
    """Of the pixels, labels and class names, whatever files and order they came in."""
    unreadable: tuple[str, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()
    side: int = SIDE
    resize: Resize = "crop"
    copies: tuple[tuple[str, str], ...] = ()
    """What is to be said of pictures that come more than once, and the paths of one of them."""

    def warnings(self) -> list[str]:
        """A line for each of ``copies``, and for classes that may not be meant so."""
        lines = [
            f"warning: {what}" + (f"; for example {paths}" if paths else "")
            for what, paths in self.copies
        ]
        counted = Counter(map(_folded, self.classes))
        if alike := [label for label in self.classes if counted[_folded(label)] > 1]:
            shown = ", ".join(alike[:SHOWN]) + (", …" if len(alike) > SHOWN else "")
            lines.append(
                f"warning: {shown} are {len(alike)} classes, whose names differ in capital "
                "letters or blanks only"
            )
        for what, split in (("validation", self.validation), ("the test", self.test)):
            counts = torch.bincount(split.labels, minlength=len(self.classes)).tolist()
            lacking = [
                label for label, count in zip(self.classes, counts, strict=True) if not count
            ]
            if lacking:
                shown = ", ".join(lacking[:SHOWN]) + (", …" if len(lacking) > SHOWN else "")
                lines.append(f"warning: there is no picture for {what} of {shown}")
        return lines


def _folded(label: str) -> str:
    return "".join(label.casefold().split())


@dataclass
class _Collected:
    """Decoded images by split and class while reading; ``paths`` by the digest of their pixels."""

    side: int = SIDE
    resize: Resize = "crop"
    left_out: Counter[str] = field(default_factory=Counter)
    images: dict[str, dict[str, list[Pixels]]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    paths: dict[bytes, list[str]] = field(default_factory=dict)
    files: int = 0


def load_images(
    source: Path | None,
    *,
    split_seed: int = 0,
    validation: int | None = None,
    side: int | None = None,
    resize: Resize = "crop",
    zip_encoding: str | None = None,
    download_to: Path = Path("data"),
) -> ImageData:
    """Read ``source``, a folder or a zip, or CIFAR-10 by torchvision's downloader if it is None.

    Pictures of any size and mode become ``side`` × ``side``, by default the smallest of ``SIDES``
    that holds the median picture; ``resize`` says how, as in ``contract.pictures.decode``. Within
    each class the images are put in an order of their own (by their bytes), so that the splits do
    not depend on file names. About ``validation`` images are set aside for that, the same share of
    every class, by default 5,000 or a tenth; fewer are a part of those that more would be. A
    validation folder is used as it is.

    Raises JobError: no such file, not a zip, fewer than 2 or more than 1,000 classes, an empty
    class, more than 1 % (and more than one) of the files unreadable, or too few images for
    ``validation``.
    """
    collected = _Collected(resize=resize)
    if source is None:
        if side not in {None, SIDE}:
            raise JobError(
                f"CIFAR-10 is of {SIDE}×{SIDE} pixels; --side {side} needs other --images"
            )
        _read_torchvision(download_to, collected)
        name = DOWNLOADED
    else:
        _read_tree(source, collected, side, zip_encoding)
        name = source.name or source.resolve().name
    return _assemble(name, collected, split_seed, validation)


def _read_torchvision(folder: Path, collected: _Collected) -> None:
    from torchvision.datasets import CIFAR10

    for split, train in (("train", True), ("test", False)):
        try:
            dataset = CIFAR10(str(folder), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise JobError(
                f"CIFAR-10 could not be downloaded ({error}); get it another way and pass it with "
                "--images FOLDER_OR_ZIP"
            ) from None
        by_class = collected.images.setdefault(split, {})
        for pixels, label in zip(dataset.data, dataset.targets, strict=True):
            by_class.setdefault(dataset.classes[label], []).append(pixels)
        collected.files += len(dataset.targets)


def _read_tree(
    source: Path,
    collected: _Collected,
    side: int | None,
    zip_encoding: str | None,
) -> None:
    tree = find(source, zip_encoding)
    collected.left_out.update(tree.left_out)
    collected.side = side or _usual_side(tree)
    _check_memory(source, len(tree.members), collected.side)
    for split, labels in tree.classes.items():
        for label in labels:
            collected.images.setdefault(split, {}).setdefault(label, [])
    with (
        told(f"reading {source}", "files", len(tree.members)) as advance,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of damaged EXIF blocks, which change nothing
        for member in tree.members:
            _read_member(member, collected)
            advance(1)


def _read_member(member: Member, collected: _Collected) -> None:
    if PurePosixPath(member.path).suffix.lower() in RAW_ENDINGS:
        collected.left_out[RAW] += 1
        return
    try:
        content = member.read()
        try:
            pixels = to_square(content, collected.side, collected.resize)
        except PictureUnsupported:
            kind = _other_kind(member, content)
            if kind is None:
                raise
            collected.left_out[kind] += 1
            return
    except (PictureError, Unreadable) as error:
        collected.unreadable.append(f"{member.path}: {error}")
    else:
        collected.images[member.split][member.label].append(pixels)
        collected.paths.setdefault(_of_pixels(pixels), []).append(member.path)
    collected.files += 1


def to_square(content: bytes, side: int, resize: Resize = "crop") -> Pixels:
    """The bytes of a picture as uint8 [side, side, 3]: the very pixels that the service would see.

    Raises PictureError.
    """
    return decode(_opened(content), side, resize).pixels


def _opened(content: bytes) -> Header:
    if content[:4] in {b"II*\0", b"MM\0*"} or content[:2] in {b"P5", b"P6"}:
        content = _as_png(content)  # read for training only, not by the service
    return open_image(content, LARGEST_PIXELS, LARGEST_SIDE_OF_FILE)


def _as_png(content: bytes) -> bytes:
    """A TIFF or PPM as PNG."""
    stream = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=("TIFF", "PPM")) as image:
            known = image.mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
            (image if known else image.convert("RGB")).save(stream, "PNG", compress_level=0)
    except UnidentifiedImageError:
        raise PictureUnsupported("This TIFF or PPM is of a kind that is not read") from None
    except Exception as error:  # as ``contract.pictures`` has it
        raise PictureDamaged(f"The file is damaged and not readable ({error})") from None
    return stream.getvalue()


def _other_kind(member: Member, content: bytes) -> str | None:
    """What a file that isn't a picture is counted as; None for one whose ending says it is one."""
    brand = content[8:12] if content[4:8] == b"ftyp" else b""
    if brand in {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"}:
        return "HEIC (save them as JPEG)"
    if brand:
        return "AVIF (save them as JPEG)" if brand in {b"avif", b"avis"} else "films"
    ending = PurePosixPath(member.path).suffix.lower()
    if ending in PICTURE_ENDINGS:
        return None
    if ending == ".zip":
        return "zips (unpack them)"
    return f"{ending} files" if ending else "files that are no pictures"


def _usual_side(tree: Tree) -> int:
    """The smallest of ``SIDES`` that holds the median picture, by its shorter side."""
    step = max(1, len(tree.members) // SAMPLED_FILES)
    shorter = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for member in tree.members[::step]:
            try:
                header = _opened(member.read())
            except (PictureError, Unreadable):
                continue
            shorter.append(min(header.width, header.height))
    median = float(np.median(shorter)) if shorter else SIDES[0]
    return next((side for side in SIDES if side >= median), SIDES[-1])


def _check_memory(source: Path, pictures: int, side: int) -> None:
    """Raise JobError if so many pictures don't fit into memory, twice while they are ordered."""
    needed = 2 * pictures * side * side * 3
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable")) * 1024
    except (OSError, StopIteration, ValueError):
        return
    if needed > free:
        raise JobError(
            f"{source}: {pictures:,} pictures of {side}×{side} take {needed / 1e9:.1f} GB of "
            f"memory, and {free / 1e9:.1f} are free; choose a smaller --side, or fewer pictures"
        )


def _assemble(
    name: str, collected: _Collected, split_seed: int, validation_rows: int | None
) -> ImageData:
    train = collected.images.get("train", {})
    classes = tuple(sorted(train))
    also = "".join(f"; left out: {count} {kind}" for kind, count in collected.left_out.items())
    also += "".join(f"; not readable: {line}" for line in collected.unreadable[:1])
    if not MIN_CLASSES <= len(classes) <= MAX_CLASSES:
        found = "1 class was" if len(classes) == 1 else f"{len(classes)} classes were"
        raise JobError(
            f"{name}: {found} found; there must be {MIN_CLASSES} to "
            f"{MAX_CLASSES}, each a folder of pictures: <class>/* or train/<class>/*{also}"
        )
    allowed = max(1, UNREADABLE_LIMIT * collected.files)
    if len(collected.unreadable) > allowed:
        raise JobError(
            f"{name}: {len(collected.unreadable)} of {collected.files} files can't be read as "
            f"pictures, more than 1 %; the first is {collected.unreadable[0]}"
        )
    for label in classes:
        if not train[label]:
            raise JobError(f"{name}: class {label} has no readable picture{also}")
    digests: list[bytes] = []
    splits: dict[str, Split] = {}
    for split in ("train", "test", "validation"):
        by_class: list[tuple[int, list[Pixels]]] = []
        for index, label in enumerate(classes):
            pixels = collected.images.get(split, {}).pop(label, [])
            keyed = sorted(
                ((_digest(split, label, image), image) for image in pixels),
                key=lambda pair: pair[0],
            )
            digests.extend(key for key, _ in keyed)
            by_class.append((index, [image for _, image in keyed]))
        splits[split] = _stack(by_class, collected.side)
    whole, test, given = splits["train"], splits["test"], splits["validation"]
    generator = torch.Generator().manual_seed(split_seed)
    if not len(test):
        whole, test = _hold_out(whole, len(whole) * HELD_OUT, generator)
    most = len(whole) // 2
    if validation_rows is not None and not 1 <= validation_rows <= most:
        raise JobError(
            f"{name}: from 1 to {most:,} of its {len(whole):,} images can be set aside "
            f"for validation, not {validation_rows:,}"
        )
    if len(given):
        if validation_rows is not None:
            raise JobError(f"{name}: it has a validation folder; --validation has no use beside it")
        rest, validation = whole, given
    else:
        rows = validation_rows or min(VALIDATION_ROWS, len(whole) * HELD_OUT)
        rest, validation = _hold_out(whole, rows, generator)
    if not len(validation) or not len(test):
        raise JobError(
            f"{name}: too few pictures to set some aside for validation and test; "
            f"give each class three or more{also}"
        )
    return ImageData(
        name=name,
        classes=classes,
        train=rest,
        validation=validation,
        test=test,
        sha256=hashlib.sha256(b"".join(digests)).hexdigest(),
        unreadable=tuple(collected.unreadable),
        left_out=tuple(sorted(collected.left_out.items())),
        side=collected.side,
        resize=collected.resize,
        copies=tuple(_copies(rest, validation, test, collected.paths)),
    )


def _copies(
    train: Split, validation: Split, test: Split, paths: dict[bytes, list[str]]
) -> Iterator[tuple[str, str]]:
    """Of pictures whose pixels come more than once, whatever their files: as ``ImageData`` has it.

    A picture with two labels can't be right for both; one that is trained on tells nothing as a
    test.
    """
    keys = [
        [_of_pixels(image.permute(1, 2, 0).numpy()) for image in split.images]
        for split in (train, validation, test)
    ]
    in_train, in_validation, in_test = map(Counter, keys)
    labels: dict[bytes, set[int]] = {}
    for split, found in zip((train, validation, test), keys, strict=True):
        for key, label in zip(found, split.labels.tolist(), strict=True):
            labels.setdefault(key, set()).add(label)

    def example(key: bytes) -> str:
        return " and ".join(paths.get(key, ())[:2])

    if torn := [key for key, found in labels.items() if len(found) > 1]:
        yield f"pictures that are in more than one class: {len(torn):,}", example(torn[0])
    for name, rows, other, theirs in (
        ("test", in_test, "training", in_train),
        ("validation", in_validation, "training", in_train),
        ("test", in_test, "validation", in_validation),
    ):
        if shared := [key for key in rows if key in theirs]:
            count = sum(rows[key] for key in shared)
            yield (
                f"pictures for {name} that are among those for {other} too: {count:,} of "
                f"{rows.total():,}, so that the {name} figures are too good",
                example(shared[0]),
            )
    if again := [key for key, count in in_train.items() if count > 1]:
        count = in_train.total() - len(in_train)
        yield f"pictures for training that are copies of others: {count:,}", example(again[0])


def _of_pixels(image: Pixels) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _digest(split: str, label: str, image: Pixels) -> bytes:
    return hashlib.sha256(f"{split}/{label}\n".encode() + image.tobytes()).digest()


def _stack(by_class: list[tuple[int, list[Pixels]]], side: int) -> Split:
    labels = [index for index, ordered in by_class for _ in ordered]
    stacked = np.empty((len(labels), 3, side, side), np.uint8)
    for row, image in enumerate(image for _, ordered in by_class for image in ordered):
        stacked[row] = image.transpose(2, 0, 1)
    return Split(torch.from_numpy(stacked), torch.tensor(labels, dtype=torch.int64))


def _hold_out(split: Split, rows: float, generator: torch.Generator) -> tuple[Split, Split]:
    """Set about ``rows`` aside, the same share of every class; each class keeps at least one."""
    aside = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = torch.nonzero(split.labels == label).flatten()
        count = min(max(1, round(rows * len(members) / len(split))), len(members) - 1)
        chosen = torch.randperm(len(members), generator=generator)[:count]
        aside[members[chosen]] = True
    return (
        Split(split.images[~aside], split.labels[~aside]),
        Split(split.images[aside], split.labels[aside]),
    )
