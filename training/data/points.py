"""Read pairs (x, y) from a CSV file as people have them, and say exactly what is wrong with one.

Accepted: comma, semicolon, tab or blanks between cells; a header or none; an index column before x
and y or none; a byte order mark; any line ending; blank lines and lines that start with #. Where
semicolon or tab separates, 0,5 may be written for 0.5.
"""

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import JobError

SIZE_LIMIT = 32 * 1024 * 1024  # bytes
MAGNITUDE_LIMIT = 1e12  # beyond it squared errors lose all their digits
SPREAD_LIMIT = 1e-8  # of the size of x; below it differences of x have lost their digits
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class Points:
    """Pairs in the order of the file: x [n], y [n], float64, finite."""

    name: str
    sha256: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @property
    def distinct(self) -> int:
        """How many different x there are; the same x may come with several y."""
        return len(np.unique(self.x))


@dataclass(frozen=True)
class _Row:
    number: int  # as an editor counts lines, from 1
    cells: list[str]


def read_points(path: Path) -> Points:
    """The points in the CSV file at ``path``.

    Raises JobError, in one line that names row and column, for a file that can't be read or whose
    cells aren't all finite numbers.
    """
    content = _read(path)
    text = _decode(path, content)
    delimiter = _delimiter(text)
    rows = list(_rows(path, text, delimiter))
    if not rows:
        raise JobError(f"{path}: the file has no rows; give two columns, x and y")
    header = None if any(_looks_numeric(cell, delimiter) for cell in rows[0].cells) else rows[0]
    body = rows[1:] if header else rows
    if not body:
        raise JobError(f"{path}: the file has a header but no points below it")
    width = len((header or body[0]).cells)
    for row in body:
        if len(row.cells) != width:
            raise JobError(
                f"{path}: row {row.number} has {_cells(len(row.cells))}, "
                f"but row {rows[0].number} has {width}"
            )
    names = header.cells if header else []
    x_column, y_column = _columns(path, width, names, body)
    pairs = [
        [_number(path, row, column, names, delimiter) for column in (x_column, y_column)]
        for row in body
    ]
    x, y = np.array(pairs, dtype=np.float64).T
    points = Points(path.name, hashlib.sha256(content).hexdigest(), x.copy(), y.copy())
    if points.distinct < 2:
        raise JobError(f"{path}: all x are {x[0]:g}; a curve needs at least two different x")
    if np.ptp(x) < SPREAD_LIMIT * np.abs(x).max():
        raise JobError(
            f"{path}: x runs from {float(x.min())!r} to {float(x.max())!r}, "
            "too little for numbers of that size; subtract a constant from x"
        )
    return points


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise JobError(f"{path}: the file is larger than {SIZE_LIMIT // 2**20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such file; --data names a CSV of x and y") from None
    except IsADirectoryError:
        raise JobError(f"{path}: this is a folder; --data names a CSV file") from None
    except OSError as error:
        raise JobError(f"{path}: the file can't be read: {error.strerror}") from None


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise JobError(f"{path}: row {row} is not UTF-8 text; save the file as CSV UTF-8") from None


def _delimiter(text: str) -> str:
    """What separates cells, by the first line that has any; a blank if nothing else does."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return next((mark for mark in ";\t," if mark in line), " ")
    return ","


def _rows(path: Path, text: str, delimiter: str) -> Iterator[_Row]:
    # csv counts a line for each item it is given; splitlines here is what makes row numbers right.
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if delimiter == " ":
            yield _Row(number, line.split())
            continue
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise JobError(f"{path}: row {number} is not CSV: {error}") from None
        yield _Row(number, [cell.strip() for cell in cells])


def _columns(path: Path, width: int, names: list[str], body: list[_Row]) -> tuple[int, int]:
    """Which columns are x and y: by their names, else the last two after an index."""
    lowered = [name.lower() for name in names]
    if lowered.count("x") == 1 and lowered.count("y") == 1:
        return lowered.index("x"), lowered.index("y")
    if width == 2:
        return 0, 1
    if width == 1:
        raise JobError(
            f"{path}: row {body[0].number} has 1 cell; two columns are needed, x and y, "
            "with a comma, semicolon or tab between them"
        )
    if width == 3 and _is_index([row.cells[0] for row in body]):
        return 1, 2
    raise JobError(
        f"{path}: there are {width} columns, and which are x and y is not clear; "
        "keep two, or name them x and y in a header"
    )


def _is_index(cells: list[str]) -> bool:
    """Whether these are 0, 1, 2, … or 1, 2, 3, …"""
    return cells in (
        [str(number) for number in range(len(cells))],
        [str(number) for number in range(1, len(cells) + 1)],
    )


def _looks_numeric(cell: str, delimiter: str) -> bool:
    return bool(_NUMBER.fullmatch(_plain(cell, delimiter)) or _NOT_FINITE.fullmatch(cell))


def _number(path: Path, row: _Row, column: int, names: list[str], delimiter: str) -> float:
    cell = row.cells[column]
    where = f"{path}: row {row.number}, column {column + 1}"
    if column < len(names) and names[column]:
        where += f" ({names[column]:.40})"
    if not cell:
        raise JobError(f"{where}: the cell is empty; a number is needed")
    if _NOT_FINITE.fullmatch(cell):
        raise JobError(f"{where}: {cell} is not a finite number")
    plain = _plain(cell, delimiter)
    if not _NUMBER.fullmatch(plain):
        raise JobError(f"{where}: {cell[:40]!r} is not a number")
    value = float(plain)
    if abs(value) > MAGNITUDE_LIMIT:
        raise JobError(f"{where}: {cell[:40]} is too large; the limit is {MAGNITUDE_LIMIT:g}")
    return value


def _plain(cell: str, delimiter: str) -> str:
    """The cell with a decimal point, where a decimal comma can't be a separator."""
    return cell.replace(",", ".", 1) if delimiter in ";\t" else cell


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"
