"""Which files of a folder or a zip are the pictures of which class and split.

Accepted trees: ``train/<class>/*`` with or without ``val/<class>/*`` and ``test/<class>/*`` (any
case, and the usual spellings), or ``<class>/*``; below a lone wrapping folder as well. What is left
out is counted by kind. What operating systems and editors leave behind is never looked at.
"""

import os
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from training.errors import JobError

LARGEST_FILE = 200 * 1024 * 1024  # bytes; what is larger is no picture
SPLITS = {
    "train": "train training trainset trainingset traindata trainingdata trainimages",
    "validation": "val valid validation valset validset validationset valdata valimages dev devset",
    "test": "test testing testset testingset testdata testimages",
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names.split()}
_FOREIGN = {
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin"),
    "icon\r",  # of a folder, on a Mac
}
_PICTURES = {
    "png",
    "jpg",
    "jpeg",
    "jfif",
    "webp",
    "gif",
    "bmp",
    "mpo",
    "ppm",
    "tif",
    "tiff",
    "heic",
}

Read = Callable[[], bytes]
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """A file in a class's folder; ``read`` raises Unreadable."""

    split: str
    label: str
    path: str
    read: Read


@dataclass
class Tree:
    """The classes of each split, even those without a file; the files; what was left out."""

    classes: dict[str, set[str]] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class Unreadable(Exception):
    """A file's bytes can't be had. The text says why."""


def find(source: Path, zip_encoding: str | None = None) -> Tree:
    """The tree in ``source``, a folder or a zip, whose names are in ``zip_encoding``.

    By default a zip's names are UTF-8 if they decode so, else cp437, or cp1252 where only that
    gives letters. Raises JobError: no such file, not a zip, all of it encrypted, a class's folder
    that holds only folders, and where a folder called train/ may be a class or a split.
    """
    entries, twice = _by_path(_entries(source, zip_encoding))
    entries = _unwrapped(entries)
    folders = {parts for parts, read in entries.items() if read is None}
    files = {parts: read for parts, read in entries.items() if read is not None}
    nested = _holding_only_folders(entries)
    splits = {parts[0] for parts in nested if len(parts) == 1 and split_of(parts[0]) is not None}
    has_splits = any(split_of(name) == "train" for name in splits)
    if not has_splits:
        _require_no_splits(source, entries, splits)
    if splits and not has_splits:
        raise JobError(
            f"{source}: there is {sorted(splits)[0]}/ with folders in it, and no train/ beside it; "
            "call the folder of the pictures to train on train/"
        )
    depth = 2 if has_splits else 1
    tree = Tree()
    if twice:
        kind = f"of a path that another one has too (the last is read), such as {twice[0]}"
        tree.left_out[kind] = len(twice)
    for parts in sorted(folders):
        split = split_of(parts[0]) if has_splits else "train"
        if len(parts) == depth and split is not None:
            if parts in nested:
                inner = next(p for p in sorted(folders) if len(p) > depth and p[:depth] == parts)
                raise JobError(
                    f"{source}: the class folder {'/'.join(parts)} holds only folders, such as "
                    f"{inner[-1]}; the pictures of a class must lie in its folder itself"
                    + _other_reading(parts, entries)
                )
            tree.classes.setdefault(split, set()).add(parts[-1])
    for parts, read in sorted(files.items()):
        split = split_of(parts[0]) if has_splits and len(parts) > 1 else "train"
        if len(parts) <= depth:
            zipped = parts[-1].casefold().endswith(".zip")
            what = "zips (unpack them) " if zipped else ""
            tree.left_out[f"{what}beside the classes' folders"] += 1
        elif split is None:
            tree.left_out[f"in {parts[0]}/, which is neither train, val nor test"] += 1
        elif len(parts) > depth + 1:
            tree.left_out["in folders below a class's"] += 1
        elif parts[depth - 1] not in tree.classes.get("train", ()):
            tree.left_out[f"in {parts[0]}/ of classes that train/ lacks"] += 1
        else:
            tree.members.append(Member(split, parts[depth - 1], "/".join(parts), read))
    return tree


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, if any: ``Training_Set`` → ``train``."""
    return _SPLIT_OF.get(re.sub(r"[\s_-]", "", name).casefold())


def _require_no_splits(source: Path, entries: dict[Parts, Read | None], splits: set[str]) -> None:
    """Raise JobError where a folder called train/, val/ or test/ is a class only by mistake."""
    tops = sorted(parts[0] for parts, read in entries.items() if len(parts) == 1 and read is None)
    named = [top for top in tops if split_of(top) is not None]
    if len(named) > 1 and named == tops and not splits:
        first = min(named, key=lambda top: split_of(top) != "train")
        raise JobError(
            f"{source}: {' and '.join(f'{top}/' for top in named)} hold pictures themselves; sort "
            f"them into a folder for each class: {first}/<class>/*"
        )
    for top in named:
        files = [p for p, read in entries.items() if len(p) == 2 and p[0] == top and read]
        files = [parts for parts in files if _counts(parts[1], entries[parts])]
        deeper = [p for p, read in entries.items() if len(p) > 2 and p[0] == top and read]
        if files and deeper:
            raise JobError(
                f"{source}: {top}/ holds files, such as {files[0][1]}, and folders with files, "
                f"such as {deeper[0][1]}/; if the folders are classes take the files away, "
                f"if {top}/ is a class, the folders"
            )


def _other_reading(folder: Parts, entries: dict[Parts, Read | None]) -> str:
    """What else may be meant by a class's folder that holds only folders."""
    if len(folder) > 1:
        return ""
    beside = [parts for parts in entries if len(parts) == 1 and parts != folder]
    if beside and all(entries[parts] is not None for parts in beside):
        return f"; if its folders are the classes, take away what lies beside it: {beside[0][0]}"
    return "; folders of classes to train on and to test with are called train/, val/ and test/"


def _by_path(
    entries: Iterator[tuple[Parts, Read | None]],
) -> tuple[dict[Parts, Read | None], list[str]]:
    """Of a path that a zip has twice the last, as unpacking leaves it; a folder before a file.

    And the path of each file that gives way to another one so. In a folder too there may be two,
    whose names differ in how their accents are written.
    """
    found: dict[Parts, Read | None] = {}
    twice = []
    for parts, read in entries:
        if parts in found and not (read is None and found[parts] is None):
            twice.append("/".join(parts))
        if read is None or found.get(parts, read) is not None:
            found[parts] = read
    return found, twice


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _FOREIGN


def _holding_only_folders(entries: dict[Parts, Read | None]) -> set[Parts]:
    """The folders in which there are folders and no file that counts."""
    holders: dict[bool, set[Parts]] = {True: set(), False: set()}
    for parts, read in entries.items():
        if _counts(parts[-1], read):
            holders[read is None].add(parts[:-1])
    return holders[True] - holders[False]


def _counts(name: str, read: Read | None) -> bool:
    """A folder, or a file that may be a picture: a text beside the folders decides nothing."""
    ending = name.rpartition(".")[2].casefold() if "." in name else ""
    return read is None or not ending or ending in _PICTURES


def _unwrapped(entries: dict[Parts, Read | None]) -> dict[Parts, Read | None]:
    """The entries below a lone folder, if there is nothing else and it isn't a class itself."""
    while True:
        tops = {parts[0] for parts, read in entries.items() if _counts(parts[-1], read)}
        if len(tops) != 1:
            return entries
        (top,) = tops
        if split_of(top) is not None or (top,) not in _holding_only_folders(entries):
            return entries
        entries = {p[1:]: read for p, read in entries.items() if p[0] == top and len(p) > 1}


def _entries(source: Path, encoding: str | None) -> Iterator[tuple[Parts, Read | None]]:
    """Paths below ``source`` with a function that reads the file; None in its place: a folder."""
    if source.is_dir():
        yield from _in_folder(source, (), ())
    elif source.is_file():
        yield from _in_zip(source, encoding)
    else:
        raise JobError(f"--images {source}: there is no such folder or zip")


def _in_folder(
    folder: Path, parts: Parts, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[Parts, Read | None]]:
    found = folder.stat()
    identity = (found.st_dev, found.st_ino)
    if identity in above:  # a link to a folder that it lies in
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise JobError(f"--images {folder}: {error.strerror}") from None
    for entry in entries:
        if _is_foreign(entry.name):
            continue
        below = (*parts, _shown(entry.name))
        if entry.is_dir():
            yield below, None
            yield from _in_folder(Path(entry.path), below, (*above, identity))
        else:
            yield below, _reader_of_file(Path(entry.path))


def _shown(name: str) -> str:
    """A name from a disk, which need not be UTF-8, and on a Mac has its accents apart."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _reader_of_file(path: Path) -> Read:
    def read() -> bytes:
        try:
            if not path.is_file():
                raise Unreadable("not a plain file, or a link to nowhere")
            if path.stat().st_size > LARGEST_FILE:
                raise Unreadable(f"larger than {LARGEST_FILE >> 20} MiB")
            return path.read_bytes()
        except OSError as error:
            raise Unreadable(error.strerror or type(error).__name__) from None

    return read


def _in_zip(source: Path, encoding: str | None) -> Iterator[tuple[Parts, Read | None]]:
    try:
        archive = zipfile.ZipFile(source)
        members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise JobError(
            f"--images {source}: this is neither a folder nor a zip; unpack it and give the folder"
        ) from None
    files = [info for info in members if not info.is_dir()]
    if files and all(info.flag_bits & 1 for info in files):
        raise JobError(f"--images {source}: the zip is encrypted; unpack it and give the folder")
    for info in members:
        name = _member_name(info, encoding).replace("\\", "/")
        parts = tuple(part for part in name.split("/") if part not in {"", ".", ".."})
        if not parts or any(map(_is_foreign, parts)):
            continue
        for length in range(1, len(parts)):
            yield parts[:length], None
        if info.is_dir() or name.endswith("/"):
            yield parts, None
        else:
            yield parts, _reader_of_member(archive, info)


def _member_name(info: zipfile.ZipInfo, encoding: str | None) -> str:
    if info.flag_bits & 0x800:
        return unicodedata.normalize("NFC", info.filename)
    raw = info.orig_filename.encode("cp437")  # as zipfile has decoded it
    try:
        if encoding is not None:
            return unicodedata.normalize("NFC", raw.decode(encoding))
        return unicodedata.normalize("NFC", raw.decode("utf-8"))
    except LookupError:
        raise JobError(f"--zip-encoding {encoding}: there is no such encoding") from None
    except UnicodeDecodeError:
        if encoding is not None:
            raise JobError(
                f"--zip-encoding {encoding}: the name {info.filename!r} can't be read so"
            ) from None
    for guess in ("cp437", "cp1252"):
        text = raw.decode(guess, "replace")
        if all(char.isascii() or _is_latin_letter(char) for char in text):
            return text
    return raw.decode("cp437")


def _is_latin_letter(char: str) -> bool:
    return unicodedata.category(char) in {"Lu", "Ll"} and "LATIN" in unicodedata.name(char, "")


def _reader_of_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Read:
    def read() -> bytes:
        if info.flag_bits & 1:
            raise Unreadable("encrypted")
        if info.file_size > LARGEST_FILE:
            raise Unreadable(f"larger than {LARGEST_FILE >> 20} MiB")
        try:
            return archive.read(info)
        except NotImplementedError:
            raise Unreadable(
                f"compressed by method {info.compress_type}, which is not read; zip it anew"
            ) from None
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
            raise Unreadable("damaged in the zip") from None

    return read
