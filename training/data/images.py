"""Images for a classifier: CIFAR-10, or any folder or zip of pictures sorted by class.

Accepted trees, in a folder or a zip: ``train/<class>/*`` and ``test/<class>/*``; only ``train``; or
``<class>/*``. Where there is no test set, a tenth of each class is set aside as one.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from training.errors import JobError

SIDE = 32  # pixels; what the networks are made for
VALIDATION_ROWS = 5000
HELD_OUT = 0.1
UNREADABLE_LIMIT = 0.01
MIN_CLASSES, MAX_CLASSES = 2, 1000
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".mpo", ".ppm", ".tif", ".tiff"}

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
    """All splits of a data set. ``unreadable`` names the files that were skipped, and why."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    sha256: str
    """Of the pixels, labels and class names, whatever files and order they came in."""
    unreadable: tuple[str, ...] = ()


@dataclass
class _Collected:
    """Decoded images by split and class while reading."""

    images: dict[str, dict[str, list[Pixels]]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    files: int = 0


def load_images(
    source: Path | None,
    *,
    split_seed: int = 0,
    validation: int | None = None,
    download_to: Path = Path("data"),
    progress: Callable[[int], None] = lambda _: None,
) -> ImageData:
    """Read ``source``, a folder or a zip, or CIFAR-10 by torchvision's downloader if it is None.

    Pictures of any size and mode are centre-cropped to a square and reduced to 32×32 with
    antialiasing, as the service does with what it is sent. Within each class the images are put in
    an order of their own (by their bytes), so that the splits do not depend on file names. About
    ``validation`` images are set aside for that, the same share of every class, by default 5,000
    or a tenth; fewer are a part of those that more would be.

    Raises JobError: no such file, not a zip, fewer than 2 or more than 1,000 classes, an empty
    class, more than 1 % of the files unreadable, or too few images for ``validation``.
    """
    collected = _Collected()
    if source is None:
        _read_torchvision(download_to, collected)
        name = "CIFAR-10"
    else:
        _read_tree(source, collected, progress)
        name = source.name
    return _assemble(name, collected, split_seed, validation)


def to_square(image: Image.Image, side: int = SIDE) -> Pixels:
    """A picture as uint8 [side, side, 3]: EXIF orientation applied, alpha over white, cropped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)


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


def _read_tree(source: Path, collected: _Collected, progress: Callable[[int], None]) -> None:
    folders: set[PurePosixPath] = set()
    members: list[tuple[PurePosixPath, Callable[[], bytes]]] = []
    for path, read in _members(source):
        if read is None:
            folders.add(path)
        elif path.suffix.lower() in _ENDINGS and not path.name.startswith("."):
            members.append((path, read))
    tops = {path.parts[0] for path in folders}
    has_splits = "train" in tops
    depth = 2 if has_splits else 1
    for path in folders:
        if len(path.parts) == depth and (not has_splits or path.parts[0] in ("train", "test")):
            split = path.parts[0] if has_splits else "train"
            collected.images.setdefault(split, {}).setdefault(path.parts[-1], [])
    for path, read in members:
        split = path.parts[0] if has_splits else "train"
        label = path.parts[depth - 1] if len(path.parts) > depth else ""
        if label not in collected.images.get(split, {}):
            continue  # beside the classes' folders, not in one
        collected.files += 1
        progress(collected.files)
        try:
            with Image.open(io.BytesIO(read())) as image:
                collected.images[split][label].append(to_square(image))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
            collected.unreadable.append(f"{path}: {str(error) or type(error).__name__}")
        except (Image.DecompressionBombError, zipfile.BadZipFile, MemoryError) as error:
            collected.unreadable.append(f"{path}: {error}")


def _members(
    source: Path,
) -> Iterator[tuple[PurePosixPath, Callable[[], bytes] | None]]:
    """Paths below ``source`` with a function that reads the file; None in place of it: a folder."""
    if source.is_dir():
        for root, _, files in os.walk(source, followlinks=True):
            below = PurePosixPath(Path(root).relative_to(source).as_posix())
            if below.parts and not below.name.startswith("."):
                yield below, None
            for name in sorted(files):
                yield below / name, (Path(root) / name).read_bytes
        return
    if not source.is_file():
        raise JobError(f"--images {source}: there is no such folder or zip")
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError):
        raise JobError(f"--images {source}: this is neither a folder nor a zip") from None
    seen: set[PurePosixPath] = set()
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        for parent in (path, *path.parents) if info.is_dir() else path.parents:
            if parent.parts and parent not in seen:
                seen.add(parent)
                yield parent, None
        if not info.is_dir():
            yield path, lambda info=info: archive.read(info)  # type: ignore[misc]


def _assemble(
    name: str, collected: _Collected, split_seed: int, validation_rows: int | None
) -> ImageData:
    train = collected.images.get("train", {})
    classes = tuple(sorted(train))
    if not MIN_CLASSES <= len(classes) <= MAX_CLASSES:
        raise JobError(
            f"{name}: {len(classes)} classes were found; there must be {MIN_CLASSES} to "
            f"{MAX_CLASSES}, each a folder of pictures: <class>/* or train/<class>/*"
        )
    allowed = UNREADABLE_LIMIT * collected.files
    if len(collected.unreadable) > allowed:
        raise JobError(
            f"{name}: {len(collected.unreadable)} of {collected.files} files can't be read as "
            f"pictures, more than 1 %; the first is {collected.unreadable[0]}"
        )
    for label in classes:
        if not train[label]:
            raise JobError(f"{name}: class {label} has no readable picture")
    digests: list[bytes] = []
    splits: dict[str, list[tuple[int, list[Pixels]]]] = {"train": [], "test": []}
    for split, by_class in splits.items():
        for index, label in enumerate(classes):
            pixels = collected.images.get(split, {}).get(label, [])
            keyed = sorted((_digest(split, label, image), image.tobytes()) for image in pixels)
            digests.extend(key for key, _ in keyed)
            ordered = [
                np.frombuffer(raw, np.uint8).reshape(SIDE, SIDE, 3).transpose(2, 0, 1)
                for _, raw in keyed
            ]
            by_class.append((index, ordered))
    whole = _stack(splits["train"])
    test = _stack(splits["test"])
    generator = torch.Generator().manual_seed(split_seed)
    if not len(test):
        whole, test = _hold_out(whole, len(whole) * HELD_OUT, generator)
    most = len(whole) // 2
    if validation_rows is not None and not 1 <= validation_rows <= most:
        raise JobError(
            f"{name}: from 1 to {most:,} of its {len(whole):,} images can be set aside "
            f"for validation, not {validation_rows:,}"
        )
    rows = validation_rows or min(VALIDATION_ROWS, len(whole) * HELD_OUT)
    rest, validation = _hold_out(whole, rows, generator)
    if not len(validation) or not len(test):
        raise JobError(f"{name}: too few pictures to set some aside for validation and test")
    return ImageData(
        name=name,
        classes=classes,
        train=rest,
        validation=validation,
        test=test,
        sha256=hashlib.sha256(b"".join(digests)).hexdigest(),
        unreadable=tuple(collected.unreadable),
    )


def _digest(split: str, label: str, image: Pixels) -> bytes:
    return hashlib.sha256(f"{split}/{label}\n".encode() + image.tobytes()).digest()


def _stack(by_class: list[tuple[int, list[Pixels]]]) -> Split:
    images = [image for _, ordered in by_class for image in ordered]
    labels = [index for index, ordered in by_class for _ in ordered]
    stacked = np.stack(images) if images else np.zeros((0, 3, SIDE, SIDE), np.uint8)
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
