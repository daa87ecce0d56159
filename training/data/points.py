"""Read pairs (x, y) from a CSV file as people have them, and say exactly what is wrong with one.

Accepted: comma, semicolon, tab, ``|`` or blanks between cells; Excel's ``sep=;`` line; a header
(also one of two lines, quoted) or none; an index column before x and y or none; UTF-8, UTF-16 with
its byte order mark, or Windows-1252, as Excel writes where it isn't asked for UTF-8; any line
ending; blank lines, rows of separators alone, lines that start with # (but not with #DIV/0! or
#N/A); decimal points or commas; thousands separators; the minus sign and dashes of word processors.

Whether a comma is a decimal comma or stands between thousands is decided by whole columns. Where
both would do, the file is refused, and ``--decimal`` decides. What else was decided is noted.
"""

import codecs
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
HEAD = 10_000  # characters in which the delimiter is looked for
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
# What only ever stands between thousands: blanks of several widths, apostrophes.
_BETWEEN_THOUSANDS = re.compile(r"[ \u00a0\u2009\u202f'’]")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}([ \u00a0\u2009\u202f'’]\d{3})+(?!\d)")
# What an index is called; pandas leaves its name out.
_INDEX_NAMES = {"", "i", "n", "id", "idx", "index", "nr", "no", "row", "#", "unnamed: 0"}
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DASHES = re.compile(r"[\u2010-\u2013\u2212\ufe63\uff0d]")  # which stand for a minus sign
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w"\r\n])"?\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_QUOTED_GROUPS = re.compile(r'"\s*[+-]?[1-9]\d{0,2}(?:\.\d{3})+\s*"')
_DELIMITERS = {" ": "blanks", "\t": "tabs"}
# Files of other kinds that come under the name of a CSV, by how they begin.
_OTHER_FILES = (
    (re.compile(rb"PK\x03\x04"), "a workbook, such as Excel's .xlsx"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Excel workbook, .xls"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf"), "a compressed file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"\x89HDF|\x93NUMPY|MATLAB 5"), "a file of arrays"),
    (re.compile(rb"\s*\{\\rtf"), "RTF, a text with styles"),
    (re.compile(rb"\s*<(?:!|\?xml|html|head|body|meta|table|div)", re.I), "HTML or XML"),
    (re.compile(rb"\s*(?:\{\s*\"|\[\s*[\[{])"), "JSON"),
)
_FORTRAN = re.compile(r"[+-]?[\d.,]+d[+-]?\d+", re.ASCII | re.IGNORECASE)
# What instruments and archives write where they have no value.
_STAND_IN = re.compile(r"-?9{2,}([.,][09]+)?", re.ASCII)
_YEAR_MONTH_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", re.ASCII)
_PADDED = re.compile(r"0\d", re.ASCII)  # as spreadsheets never write a number, but 01.02 a date
_MONTH = (
    r"(?:jan|f[eé][bv]|m[aä]r|a[pv]r|ma[iy]|jui?[nl]|a[uo][gû]|sep|o[ck]t|nov|d[eé][cz])[a-zéû]*"
)
_DATE = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}(?!\d).*|\d{1,2}:\d{2}.*|\d{4}年.*"
    rf"|\d{{1,4}}\W{{0,2}}{_MONTH}(\W.*)?|{_MONTH}\W{{0,2}}\d{{1,4}}(\W.*)?",
    re.ASCII | re.IGNORECASE,
)
# Where a formula has no value: #DIV/0!, #WERT!, #NOM?, #N/A, #NV.
_VALUELESS = r"#(?:[¡¿]?[A-ZÀ-Þ][A-ZÀ-Þ0-9/_]*[!?]|N/?[ADV])"
_ERROR_WORD = re.compile(rf"{_VALUELESS}|##+")  # ###: the column was too narrow
_COMMENT = re.compile(
    rf"^[ \t]*(?!(?:{_VALUELESS}|##+) *[;,\t|]|{_VALUELESS} +[-+.\d]\S*$)#.*$", re.MULTILINE
)


def _number_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    point, comma = re.escape(decimal), re.escape(thousands)
    plain = rf"\d+{point}?\d*|{point}\d+"
    grouped = rf"[1-9]\d{{0,2}}(?:{comma}\d{{3}})+(?:{point}\d*)?"  # never with an exponent
    return re.compile(rf"[+-]?((?:{plain})(?:[eE][+-]?\d+)?|{grouped})", re.ASCII)


OTHER_MARK = {".": ",", ",": "."}  # a decimal mark, and what then stands between thousands
_NUMBERS = {mark: _number_pattern(mark, other) for mark, other in OTHER_MARK.items()}


@dataclass(frozen=True)
class Points:
    """Pairs in the order of the file: x [n], y [n], float64, finite.

    ``notes`` say how the file was read, where that was a decision.
    """

    name: str
    sha256: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def distinct(self) -> int:
        """How many different x there are; the same x may come with several y."""
        return len(np.unique(self.x))


@dataclass(frozen=True)
class _Row:
    number: int  # as an editor counts lines, from 1
    cells: list[str]


@dataclass(frozen=True)
class _Column:
    """The cells of x or of y, below the header."""

    title: str  # for messages: "column 2 (y)"
    cells: list[str]
    rows: list[int]


def read_points(path: Path, *, decimal: str | None = None, header: bool | None = None) -> Points:
    """The points in the CSV file at ``path``.

    ``decimal``, "." or ",", and ``header``, whether the first row names the columns, are found out
    where they aren't given. Raises JobError, in one line that names row and column, for a file that
    can't be read, whose cells aren't all finite numbers, or that can be read in two ways.
    """
    content = _read(path)
    text, notes = _decode(path, content)
    delimiter, text = _delimiter(path, text)
    rows = list(_rows(path, text, delimiter))
    if not rows:
        raise JobError(f"{path}: the file has no rows; give two columns, x and y")
    # Separators at the end of lines are no cells, where nothing ever comes after them.
    width = max(index for row in rows for index, cell in enumerate(row.cells, 1) if cell)
    rows = [_Row(row.number, row.cells[:width]) for row in rows]
    named = _is_header(rows[0]) if header is None else header
    body = rows[1:] if named else rows
    if not body:
        raise JobError(f"{path}: the file has a header but no points below it")
    _require_equal_widths(path, rows, delimiter)
    names = rows[0].cells if named else _names_in_comment(text, rows[0].number, delimiter, width)
    chosen, counted = _columns(path, names, body, delimiter)
    if counted:
        _require_not_decimal(path, delimiter, names, body)
        notes.append("the first column counts the rows and is left out")
    elif width > 2:
        notes.append(f"of the {width} columns only those named x and y are read")
    columns = [_column(body, index, names) for index in chosen]
    # Who separates cells by commas writes no decimal commas, unless between quotes, of which
    # "1.100" has no need where the point is a decimal point.
    points_only = (
        delimiter == ","
        and not any("," in cell for column in columns for cell in column.cells)
        and not _QUOTED_GROUPS.search(text)
    )
    marks, said = _decimal_marks(path, columns, "." if points_only else None, decimal)
    notes += said
    unnamed = rows[0].number if not named and header is None else None
    x, y = (
        _numbers(path, column, mark, unnamed) for column, mark in zip(columns, marks, strict=True)
    )
    if not named and names:
        named_so = ", ".join(names)
        notes.append(f"the comment above row {rows[0].number} names the columns: {named_so}")
    elif not named and header is None:
        notes.append(
            f"row {rows[0].number}, {' '.join(rows[0].cells)}, is read as a point; "
            "if it names the columns, add --header"
        )
    notes += [note for column in columns if (note := _looks_like_dates(column))]
    for column, values in zip(columns, (x, y), strict=True):
        notes += _far_stand_ins(column, values)
    if delimiter == "," and not names and width == 2 and _looks_like_decimals(columns):
        notes.append(
            f"row {rows[0].number} is read as x {columns[0].cells[0]} and y {columns[1].cells[0]}; "
            "one column with decimal commas would look the same"
        )
    points = Points(path.name, hashlib.sha256(content).hexdigest(), x, y, tuple(notes))
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
            raise JobError(
                f"{path}: the file is larger than {SIZE_LIMIT // 2**20} MiB; leave out points, "
                "or digits"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such file; --data names a CSV of x and y") from None
    except IsADirectoryError:
        raise JobError(f"{path}: this is a folder; --data names a CSV file") from None
    except OSError as error:
        raise JobError(f"{path}: the file can't be read: {error.strerror}") from None


def _decode(path: Path, content: bytes) -> tuple[str, list[str]]:
    """The text, each line with ``\\n`` at its end, and what is to be said of its encoding.

    Reading other encodings as Windows-1252 can't change a number: all have the digits in common.
    """
    for beginning, kind in _OTHER_FILES:
        if beginning.match(content.removeprefix(codecs.BOM_UTF8)):
            raise JobError(f"{path}: this is {kind}, not CSV; save or write the table as CSV")
    notes = []
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # Excel's "Unicode text"
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            row = content.count(b"\n", 0, error.start) + 1
            raise JobError(
                f"{path}: row {row} is not UTF-8 text; save the file as CSV UTF-8"
            ) from None
        notes.append("not UTF-8, so read as Windows-1252")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _DASHES.sub("-", text)
    if strange := _NO_TEXT.search(text):
        row = text.count("\n", 0, strange.start()) + 1
        raise JobError(f"{path}: row {row} is not text; save the table as CSV UTF-8")
    return text, notes


def _delimiter(path: Path, text: str) -> tuple[str, str]:
    """What separates cells, and the text without Excel's ``sep=`` line (an empty line instead).

    Decided by the first line that has any of them outside quotes; a blank if nothing else does.
    Raises JobError where commas may be decimal commas, between blanks, or separate cells.
    """
    first, newline, rest = text.partition("\n")
    if stated := _SEPARATOR_LINE.fullmatch(first):
        return stated[1], newline + rest
    head = _QUOTED.sub("quoted", _COMMENT.sub("", text[:HEAD]))
    lines = [line for line in head.split("\n") if line.strip()]
    if len(text) > HEAD and len(lines) > 1:
        lines.pop()  # cut off
    found = next((mark for mark in ";\t|," if lines and mark in lines[0]), None)
    if found is None:
        return _below_a_title(lines), text
    if found == ",":
        # 0,5 1,25 without a header: here the commas are decimal commas.
        by_blanks = _all_numbers([line.split() for line in lines], ",")
        by_commas = _all_numbers([line.split(",") for line in lines], ".")
        if by_blanks and by_commas:
            raise JobError(
                f"{path}: {lines[0].strip()[:40]!r} can be read in two ways, with cells between "
                "blanks or between commas; put ; between the cells"
            )
        if by_blanks:
            found = " "
    return found, text


def _below_a_title(lines: list[str]) -> str:
    """What separates cells where nothing in the first line does, which may be a title: what most
    of the others have. Commas between words or blanks don't count."""
    rest = lines[1:]
    for mark in ";\t|,":
        with_it = sum(mark in line and (mark != "," or len(line.split()) == 1) for line in rest)
        if 2 * with_it > len(rest):
            return mark
    return " "


def _all_numbers(rows: list[list[str]], mark: str) -> bool:
    """Whether these are equally many numbers in every row, two or more."""
    return len(rows[0]) > 1 and all(
        len(row) == len(rows[0])
        and all(not cell.endswith(",") and _NUMBERS[mark].fullmatch(_plain(cell)) for cell in row)
        for row in rows
    )


def _rows(path: Path, text: str, delimiter: str) -> Iterator[_Row]:
    lines = [f"{line}\n" for line in text.split("\n")]
    position = 0

    def following() -> Iterator[str]:
        nonlocal position
        while position < len(lines):
            position += 1
            yield lines[position - 1]

    # A record may take several lines, where a quoted cell has line breaks in it.
    blank = delimiter == " "
    reader = csv.reader(following(), delimiter=delimiter, strict=True, skipinitialspace=True)
    while position < len(lines):
        line = lines[position].strip()
        if not line or _COMMENT.match(line):
            position += 1
            continue
        number = position + 1
        if blank:
            position += 1
            cells = [cell for cell in line.split(" ") if cell]
            if '"' in line:  # names, as R writes them
                cells = next(csv.reader([line], delimiter=" ", skipinitialspace=True))
        else:
            try:
                cells = next(reader)
            except csv.Error as error:
                raise JobError(
                    f"{path}: row {number}: its quotation marks (\") don't match ({error}); "
                    "remove them"
                ) from None
        cells = [" ".join(cell.split()) for cell in cells]
        if any(cells):
            yield _Row(number, cells)


def _require_equal_widths(path: Path, rows: list[_Row], delimiter: str) -> None:
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) == width:
            continue
        hint = ""
        numeric = all(map(_looks_numeric, row.cells))
        if delimiter == "," and len(row.cells) == 2 * width and numeric:
            hint = "; if these are decimal commas, put ; between the cells or quotes around them"
        elif (
            row is rows[1]
            and len(row.cells) == width + 1
            and _is_index([each.cells[0] for each in rows[1:]])
        ):
            hint = (
                f"; if row {rows[0].number} names all columns but that of the rows' numbers, as R "
                "writes them, put a name for it before the others"
            )
        elif row is rows[1]:
            hint = f"; if row {rows[0].number} is a title, remove it"
        elif row is rows[-1]:
            hint = f"; if row {row.number} is no point, remove it"
        raise JobError(
            f"{path}: row {row.number} has {_cells(len(row.cells))}, but row {rows[0].number} has "
            f"{width}, with {_DELIMITERS.get(delimiter, delimiter)} between them{hint}"
        )


def _is_header(row: _Row) -> bool:
    """Whether no cell is a number; or only column numbers are, after an empty cell over an index,
    as pandas writes them."""
    if not row.cells[0] and row.cells[1:] == [str(n) for n in range(len(row.cells) - 1)]:
        return True
    return not any(_looks_numeric(cell) for cell in row.cells)


def _names_in_comment(text: str, first: int, delimiter: str, width: int) -> list[str]:
    """The cells of a comment right above the ``first`` row, if it names two of the columns x and y.

    As NumPy and gnuplot write them: ``# y x``. Others are comments, and there are no names.
    """
    lines = text.split("\n")[: first - 1]
    if not lines or not _COMMENT.match(lines[-1]):
        return []
    comment = lines[-1].strip().lstrip("#")
    cells = comment.split() if delimiter == " " else comment.split(delimiter)
    cells = [cell.strip() for cell in cells]
    lowered = [cell.lower() for cell in cells]
    return cells if len(cells) == width and {"x", "y"} <= set(lowered) else []


def _column(body: list[_Row], index: int, names: list[str]) -> _Column:
    title = f"column {index + 1}"
    if index < len(names) and names[index]:
        title += f" ({names[index]:.40})"
    return _Column(title, [row.cells[index] for row in body], [row.number for row in body])


def _columns(
    path: Path, names: list[str], body: list[_Row], delimiter: str
) -> tuple[tuple[int, int], bool]:
    """Which columns are x and y: by their names, else the last two after an index.

    And whether the first one was taken for an index.
    """
    width = len(body[0].cells)
    lowered = [name.lower() for name in names]
    if lowered.count("x") == 1 and lowered.count("y") == 1:
        return (lowered.index("x"), lowered.index("y")), False
    if width == 2:
        return (0, 1), False
    if width == 1:
        raise JobError(
            f"{path}: row {body[0].number} has 1 cell; two columns are needed, x and y, "
            "with a comma, semicolon or tab between them"
        )
    # A first column with a name of its own may well be x, with two measurements beside it.
    may_count = not names or lowered[0].rstrip(".") in _INDEX_NAMES
    if width == 3 and may_count and _is_index([row.cells[0] for row in body]):
        return (1, 2), True
    commas = delimiter == "," and width == 4
    raise JobError(
        f"{path}: there are {width} columns, and which are x and y is not clear; "
        "keep two, or name them x and y in a header"
        + ("; if the commas are decimal commas, put ; between the cells" if commas else "")
    )


def _require_not_decimal(path: Path, delimiter: str, names: list[str], body: list[_Row]) -> None:
    """Raise JobError where an index before whole numbers may be a number with a comma or blank.

    1,5,2 may be 1.5 and 2; 1 100 2 may be eleven hundred and 2. A header of three names decides.
    """
    first = body[0].cells
    whole = all(cell.isdecimal() for row in body for cell in row.cells)
    if not names and whole and delimiter in {",", " "}:
        shown = delimiter.join(first)
        other = f"{first[0]}{delimiter}{first[1]}"
        raise JobError(
            f"{path}: row {body[0].number}, {shown}, can be read in two ways: {first[0]} as the "
            f"row's number beside {first[1]} and {first[2]}, or {other} as one number; "
            "put ; between the cells"
        )


def _looks_like_dates(column: _Column) -> str | None:
    """What is to be said of 20240131 or 31.01, all of them dates if any is, read as numbers."""
    year_first = [cell for cell in column.cells if _YEAR_MONTH_DAY.fullmatch(cell)]
    padded = [cell for cell in column.cells if _PADDED.match(cell)]
    shown = next(iter(year_first if len(year_first) == len(column.cells) else padded), None)
    if shown is None:
        return None
    return f"{column.title} has {shown}, read as a number; if it is a date, give days instead"


def _far_stand_ins(column: _Column, values: NDArray[np.float64]) -> list[str]:
    """What is to be said of -9999 or 999.9 further from all other numbers than they lie apart."""
    found = np.array([_STAND_IN.fullmatch(cell) is not None for cell in column.cells])
    others = values[~found]
    if len(others) < 2:
        return []
    reach = np.ptp(others)
    far = found & ((values < others.min() - reach) | (values > others.max() + reach))
    if not far.any():
        return []
    cell, count = column.cells[int(far.argmax())], int(far.sum())
    rows = "1 row" if count == 1 else f"{count} rows"
    return [
        f"{column.title} has {cell}, far from other numbers, in {rows}; if it stands for a missing "
        "value, remove them"
    ]


def _looks_like_decimals(columns: list[_Column]) -> bool:
    """Whether 0,5 and 0,7 and 1,2 below each other may be a column of decimals.

    Whole numbers, those before the comma repeated.
    """
    before = columns[0].cells
    return len(set(before)) < len(before) and all(
        cell.isdecimal() for column in columns for cell in column.cells
    )


def _is_index(cells: list[str]) -> bool:
    """Whether these are 0, 1, 2, … or 1, 2, 3, …"""
    return cells in (
        [str(number) for number in range(len(cells))],
        [str(number) for number in range(1, len(cells) + 1)],
    )


def _looks_numeric(cell: str) -> bool:
    plain = _plain(cell)
    return bool(_NOT_FINITE.fullmatch(plain)) or any(
        pattern.fullmatch(plain) for pattern in _NUMBERS.values()
    )


def _decimal_marks(
    path: Path, columns: list[_Column], assumed: str | None, given: str | None
) -> tuple[list[str], list[str]]:
    """The decimal mark of each column, and what is to be said of that.

    A column that can be read both ways is read by the ``assumed`` mark, else follows the other one.
    Raises JobError if neither can be read in one way only.
    """
    possible = [_possible_marks(column, assumed, given) for column in columns]
    certain = {next(iter(marks)) for marks in possible if len(marks) == 1}
    chosen, notes = [], []
    for column, marks in zip(columns, possible, strict=True):
        if len(marks) > 1:
            if len(certain) != 1:
                cell, row = next(
                    (cell, row)
                    for cell, row in zip(column.cells, column.rows, strict=True)
                    if re.search(r"[.,]", cell)
                )
                raise JobError(
                    f"{path}: row {row}, {column.title}: {cell} is "
                    f"{_value(cell, '.'):g} with a decimal point and {_value(cell, ','):g} with a "
                    "decimal comma, and no cell decides; add --decimal . or --decimal ,"
                )
            marks = certain  # noqa: PLW2901
        mark = next(iter(marks), given or ".")
        chosen.append(mark)
        for cell, row in zip(column.cells, column.rows, strict=True):
            if OTHER_MARK[mark] in cell and _NUMBERS[mark].fullmatch(_plain(cell)):
                notes.append(f"row {row}, {column.title}: {cell} is read as {_value(cell, mark):g}")
                break
    if "," in chosen:
        notes.append("decimal commas")
    return chosen, notes


def _possible_marks(column: _Column, assumed: str | None, given: str | None) -> set[str]:
    """The decimal marks by which every cell is a number, as far as they tell different numbers.

    Empty if there is none; one if it doesn't matter.
    """
    if given:
        return {given}
    cells = {_plain(cell) for cell in column.cells if re.search(r"[.,]", cell)}
    if assumed:
        return {assumed}
    possible = {
        mark for mark, pattern in _NUMBERS.items() if all(pattern.fullmatch(cell) for cell in cells)
    }
    if not cells:
        return set()  # whole numbers: no evidence of anything, and the same either way
    return possible


def _value(cell: str, mark: str) -> float:
    return float(_plain(cell).replace(OTHER_MARK[mark], "").replace(mark, "."))


def _numbers(path: Path, column: _Column, mark: str, unnamed: int | None) -> NDArray[np.float64]:
    """The numbers in a column. In row ``unnamed`` there may be names, which weren't taken so."""
    pattern, values = _NUMBERS[mark], []
    for cell, row in zip(column.cells, column.rows, strict=True):
        plain = _plain(cell)
        where = f"{path}: row {row}, {column.title}"
        if not cell:
            raise JobError(f"{where}: the cell is empty; a number is needed, or remove the row")
        if _NOT_FINITE.fullmatch(plain):
            raise JobError(f"{where}: {cell} is not a finite number; remove the row")
        if not pattern.fullmatch(plain):
            named = f"; if row {row} names the columns, add --header" if row == unnamed else ""
            raise JobError(f"{where}: {cell[:40]!r} is not a number{_hint(plain, mark)}{named}")
        value = float(plain.replace(OTHER_MARK[mark], "").replace(mark, "."))
        if abs(value) > MAGNITUDE_LIMIT:
            raise JobError(
                f"{where}: {cell[:40]} is too large; the limit is {MAGNITUDE_LIMIT:g}: "
                "choose a larger unit, or remove the row"
            )
        values.append(value)
    return np.array(values, dtype=np.float64)


def _hint(plain: str, mark: str) -> str:
    """Why the cell isn't a number, and what to do, as far as its characters tell."""
    other = OTHER_MARK[mark]
    if _NUMBERS[other].fullmatch(plain):
        return f" with a decimal {'point' if mark == '.' else 'comma'}, as other cells have"
    if _ERROR_WORD.fullmatch(plain):
        return ": a spreadsheet has no value here; mend its formula, or remove the row"
    if _FORTRAN.fullmatch(plain):
        return f"; write {plain.upper().replace('D', 'E')}"
    if not any(char.isdecimal() for char in plain):
        return "; remove the row, and any others that are no points"
    if _DATE.fullmatch(plain):
        return "; in place of dates or times give days or seconds since the first"
    return "; write the number alone, with the digits 0 to 9, without units or thousands marks"


def _plain(cell: str) -> str:
    """The cell without what can only stand between thousands."""
    if found := _THOUSANDS.match(cell):
        return _BETWEEN_THOUSANDS.sub("", found[0]) + cell[found.end() :]
    return cell


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"
