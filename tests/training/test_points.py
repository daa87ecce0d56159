"""CSV files as people have them; each way to be wrong gets one line naming row and column."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.data import stand_in
from training.data.points import MAGNITUDE_LIMIT, Points, read_points
from training.errors import JobError


def read(tmp_path: Path, content: str | bytes) -> Points:
    path = tmp_path / "points.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_points(path)


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1,2\n3,4.5\n",
        "1,2\n3,4.5\n",
        "1,2\n3,4.5",
        "\ufeffx,y\r\n1,2\r\n3,4.5\r\n",
        "x,y\r1,2\r3,4.5\r",
        "x;y\n1;2\n3;4,5\n",
        "x\ty\n1\t2\n3\t4,5\n",
        "x y\n1 2\n3   4.5\n",
        " x , y \n 1 , 2 \n 3 , 4.5 \n",
        '"x","y"\n"1","2"\n"3","4.5"\n',
        ",x,y\n0,1,2\n1,3,4.5\n",
        "1,1,2\n2,3,4.5\n",
        "0,1,2\n1,3,4.5\n",
        "y,x\n2,1\n4.5,3\n",
        "id,X,Y,note\na,1,2,first\nb,3,4.5,second\n",
        "# measured on Monday\n\nx,y\n\n1,2\n\n3,4.5\n\n",
        "time,height\n1,2e0\n+3.0,.45E1\n",
    ],
    ids=[
        "header", "bare", "no last newline", "bom and crlf", "cr", "semicolon, decimal comma",
        "tab, decimal comma", "blanks", "padded", "quoted", "unnamed index", "index from 1",
        "index from 0", "columns by name", "more columns, by name", "comments and blank lines",
        "other names, exponents",
    ],
)  # fmt: skip
def test_accepted(tmp_path: Path, content: str) -> None:
    points = read(tmp_path, content)
    assert points.x.tolist() == [1.0, 3.0]
    assert points.y.tolist() == [2.0, 4.5]
    assert points.x.dtype == points.y.dtype == np.float64


def test_the_same_x_may_have_several_y(tmp_path: Path) -> None:
    points = read(tmp_path, "1,2\n1,3\n2,0\n")
    assert points.x.tolist() == [1, 1, 2]
    assert points.distinct == 2


@pytest.mark.parametrize(
    ("content", "x"),
    [
        ("sep=;\nx;y\n-0,5;1,5\n3;2\n", [-0.5, 3]),
        ('"sep=\t"\n-0.5\t1.5\n3\t2\n', [-0.5, 3]),
        ("x;y;\n-0,5;1,5;\n3;2;\n;;\n;;\n", [-0.5, 3]),
        ("x,y\n-0.5,1.5,,\n3,2,,\n,,,\n", [-0.5, 3]),
        ('"x", "y"\n"-0.5", "1.5"\n"3", "2"\n', [-0.5, 3]),
        ('x,y\n"-0,5","1,5"\n"3","2"\n', [-0.5, 3]),
        ('"-0,5";"1,5"\n"3";"2"\n', [-0.5, 3]),
        ("\u22120.5,1.5\n3,2\n", [-0.5, 3]),
        ('"x\n(m)","y\n(kg)"\n-0.5,1.5\n3,2\n', [-0.5, 3]),
        ("-0,5 1,5\n3,0 2\n", [-0.5, 3]),
        ("x\ty\n-0,5\t1,5\n3\t2\n".encode("utf-16"), [-0.5, 3]),
        (b"\xfe\xff" + "x,y\n-0.5,1.5\n3,2\n".encode("utf-16-be"), [-0.5, 3]),
        (",0,1\n0,-0.5,1.5\n1,3,2\n", [-0.5, 3]),
        ("900\t1.5\n1,100\t2\n", [900, 1100]),
        ("1,100\t0.1\n2,200\t0.2\n", [1100, 2200]),
        ("1.100;0,1\n2.200;0,2\n", [1100, 2200]),
        ("1.100;0.1\n2.200;0.2\n", [1.1, 2.2]),
        ("1.100,2.100\n2.200,3.200\n", [1.1, 2.2]),
        ('"1.100","0,5"\n"2.200","1,5"\n', [1100, 2200]),
        ('"-1.100","0.500"\n"2.200","1.500"\n', [-1.1, 2.2]),
        ('"-1.100","2"\n"0.195","3"\n', [-1.1, 0.195]),
        ("0,500;1,250\n1,500;2,000\n", [0.5, 1.5]),
        ("1,234,567;1\n2;2\n", [1234567, 2]),
        ("1.234,5;1\n2;2\n", [1234.5, 2]),
        ("1\u202f234,5;1\n2;2\n", [1234.5, 2]),
        ("1'234.5,1\n2,2\n", [1234.5, 2]),
        ("1 234,1\n2,2\n", [1234, 2]),
        ("0 100,1\n1 200,5\n", [0, 1]),
        ("\u22120,5 1,5\n3 2,0\n", [-0.5, 3]),
        ("x|y\n-0,5|1,5\n3|2\n", [-0.5, 3]),
        ("# read\rx,y\r-0.5,1.5\r3,2\r", [-0.5, 3]),
        ("sep=;\rx;y\r-0,5;1,5\r3;2\r", [-0.5, 3]),
        ("x y\n1\u202f234 5\n2\u202f345 6\n", [1234, 2345]),
        ("1.300e-02;1\n2.500e+00;2\n", [0.013, 2.5]),
        ("Länge;°C\r\n-0,5;1,5\r\n3;2\r\n".encode("cp1252"), [-0.5, 3]),
        ("Länge;N\r-0,5;1,5\r3;2\r".encode("mac_roman"), [-0.5, 3]),
        ("長さ,力\n-0.5,1.5\n3,2\n".encode("cp932"), [-0.5, 3]),
        ("\ufeffsep=;\r\nLänge [m];Kraft [N]\r\n-0,5;1,5\r\n3;2\r\n", [-0.5, 3]),
        ("\u20130.5,1.5\n3,2\n", [-0.5, 3]),
        ("# y x\n1.5 -0.5\n2 3\n", [-0.5, 3]),
        ("# x,y,yerr\n-0.5,1.5,1\n3,2,1\n", [-0.5, 3]),
        ("#,y,x\n0,1.5,-0.5\n1,2,3\n", [-0.5, 3]),
        ("# 2 columns\n-0.5 1.5\n3 2\n", [-0.5, 3]),
        ("Nr.;Weg [m];Kraft [N]\n1;-0,5;2\n2;3;2\n", [-0.5, 3]),
        ("x;y\n1\u2009234;0,5\n12\u2007345;1\n", [1234, 12345]),
        ('"x" "y value"\n-0.5 1.5\n3   2\n', [-0.5, 3]),
        ('"n" "x" "y"\n"1" -0.5 1.5\n"2" 3 2\n', [-0.5, 3]),
        ("{x},y\n-0.5,1.5\n3,2\n", [-0.5, 3]),
        ("<x>,<y>\n-0.5,1.5\n3,2\n", [-0.5, 3]),
    ],
)
def test_spreadsheets_are_read_right(tmp_path: Path, content: str | bytes, x: list[float]) -> None:
    assert read(tmp_path, content).x.tolist() == x


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("mark", [",", "."])
def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path, delimiter: str, mark: str) -> None:
    content = f"1{mark}100{delimiter}1\n2{mark}200{delimiter}2\n"
    with pytest.raises(JobError, match=r"row 1, column 1: 1.100 is 1.* and 1.*add --decimal"):
        read(tmp_path, content)
    path = tmp_path / "points.csv"
    assert read_points(path, decimal=mark).x.tolist() == [1.1, 2.2]
    other = "," if mark == "." else "."
    points = read_points(path, decimal=other)
    assert points.x.tolist() == [1100, 2200]
    assert points.notes[0] == f"row 1, column 1: 1{mark}100 is read as 1100"


@pytest.mark.parametrize(
    "content", ['"-12.330",1\n"-11.330",2\n', '"-12.330","1.100"\n"-11.330","2.200"\n']
)
def test_a_point_between_quotes_may_part_thousands_where_commas_part_cells(
    tmp_path: Path, content: str
) -> None:
    message = r"row 1, column 1: -12.330 is -12.33 .* and -12330 .*add --decimal"
    with pytest.raises(JobError, match=message):
        read(tmp_path, content)
    path = tmp_path / "points.csv"
    assert read_points(path, decimal=".").x.tolist() == [-12.33, -11.33]
    assert read_points(path, decimal=",").x.tolist() == [-12330, -11330]
    assert read(tmp_path, content.replace('"', "")).x.tolist() == [-12.33, -11.33]


def test_column_numbers_are_not_silently_a_point(tmp_path: Path) -> None:
    points = read(tmp_path, "0,1\n-2.0,-0.9\n-1.5,-0.8\n")
    assert len(points.x) == 3 and "add --header" in points.notes[0]
    assert len(read_points(tmp_path / "points.csv", header=True).x) == 2
    assert read(tmp_path, "x,y\n0,1\n1,2\n2,3\n").notes == ()


def test_two_measurements_beside_x_are_not_taken_for_x_and_y(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="which are x and y is not clear"):
        read(tmp_path, "t,a,b\n1,0.3,0.5\n2,0.4,0.6\n")
    points = read(tmp_path, "1,0.3,0.5\n2,0.4,0.6\n")
    assert points.x.tolist() == [0.3, 0.4]
    assert "the first column counts the rows and is left out" in points.notes


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("x,y,yerr\n1,2,0.1\n2,3,0.1\n", "of the 3 columns only those named x and y are read"),
        ("n,X,Y\n20,1,2\n21,2,3\n", "of the 3 columns only those named x and y are read"),
        ("1;5;2\n2;6;3\n", "the first column counts the rows and is left out"),
        ("n,a,b\n1,5,2\n2,6,3\n", "the first column counts the rows and is left out"),
        ("# y x\n1 2\n2 4\n", "the comment above row 2 names the columns: y, x"),
        (
            "0,5\n0,7\n1,2\n",
            "row 1 is read as x 0 and y 5; one column with decimal commas would look the same",
        ),
        (
            "x,y\n1,2\n2,-9999\n3,4\n4,-9999\n5,5\n",
            "column 2 (y) has -9999, far from other numbers, in 2 rows; if it stands for a missing "
            "value, remove them",
        ),
        (
            "x;y\n1;2,5\n2;999,9\n3;4,5\n",
            "column 2 (y) has 999,9, far from other numbers, in 1 row; if it stands for a missing "
            "value, remove them",
        ),
        (
            "day;y\n31.01;1\n01.02;2\n02.02;3\n",
            "column 1 (day) has 01.02, read as a number; if it is a date, give days instead",
        ),
        (
            "day,y\n20240131,1\n20240201,2\n",
            "column 1 (day) has 20240131, read as a number; if it is a date, give days instead",
        ),
    ],
)
def test_what_was_decided_is_said(tmp_path: Path, content: str, note: str) -> None:
    points = read(tmp_path, content)
    assert note in points.notes
    # 99 among the others is a number as any; of few numbers nobody can tell.
    for plain in ("x,y\n1,2\n2,99\n3,140\n", "x,y\n1,2\n2,-9999\n"):
        assert read(tmp_path, plain).notes == ()
    # Numbers of eight digits that no calendar has, and 0.5, are nothing to speak of.
    assert read(tmp_path, "x,y\n20240199,0.5\n20241301,1\n").notes == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("x,y\n", "header but no points"),
        ("x\n1\n2\n", "row 2 has 1 cell; two columns are needed"),
        ("1,2\n3,four\n", r"row 2, column 2: 'four' is not a number"),
        ("x,y\n1,2\n3,four\n", r"row 3, column 2 \(y\): 'four' is not a number"),
        ("x,y\n1,2\nNaN,4\n", r"row 3, column 1 \(x\): NaN is not a finite number"),
        ("1,2\n3,-inf\n", r"row 2, column 2: -inf is not a finite number"),
        ("nan,2\n3,4\n", r"row 1, column 1: nan is not a finite number"),
        ("1,2\n3,\n", r"row 2, column 2: the cell is empty"),
        ("1,2\n3,1_000\n", r"row 2, column 2: '1_000' is not a number"),
        ("1,2\n3,0x10\n", r"row 2, column 2: '0x10' is not a number"),
        ("1,2\n3,1+2j\n", r"row 2, column 2: '1\+2j' is not a number"),
        ("x;y\n1;2\nSumme;3\n", r"row 3, column 1 \(x\): 'Summe' is not a number; remove the row"),
        ("x;y\n1;2\n;3\n", r"row 3, column 1 \(x\): the cell is empty; .*or remove the row"),
        ('x,y\n"12,34,567",1\n', "without units or thousands marks"),
        ("x;y\n1–2;1\n", "'1-2' is not a number"),
        ("x,2024\n1,2\n", "row 1, column 1: 'x' .*if row 1 names the columns, add --header"),
        ("Messung 1\nx;y\n1;2\n", "row 2 has 2 cells, but row 1 has 1.*if row 1 is a title"),
        ("Messung\n\nx;y\n1;2\nEnde\n", "row 3 has 2 cells, but row 1 has 1.*is a title"),
        ("Test, Raum 3\nx;y\n1;2\n", "row 2 has 1 cell, but row 1 has 2.*is a title, remove it"),
        ("Test\nx,y\n1,2\n3,4\n", "row 2 has 2 cells, but row 1 has 1.*is a title, remove it"),
        ("0,5,1,5\n1,0,2,5\n", "4 columns.*if the commas are decimal commas, put ; between"),
        ("y\n0,5\n0,7\n", "row 2 has 2 cells, but row 1 has 1.*if these are decimal commas"),
        ("t,y\n2024-01-31T12:00Z,1\n", "in place of dates or times give days"),
        ("t;y\n01. Feb;1\n", "in place of dates or times give days"),
        ("t;y\n12 févr. 2024;1\n", "in place of dates or times give days"),
        ("t;y\nMrz 24;1\n", "'Mrz 24' is not a number"),
        ("t;y\n2024年1月31日;1\n", "in place of dates or times give days"),
        ("x\x1fy\n1\x1f2\n", "row 1 is not text"),
        ("1,2\n3,1e13\n", r"row 2, column 2: 1e13 is too large"),
        ("1,2\n3,1e999\n", r"row 2, column 2: 1e999 is too large"),
        ("x,y\n1,2\n3\n", "row 3 has 1 cell, but row 1 has 2"),
        ("x,y\n1,2\n3,4,5\n", "row 3 has 3 cells, but row 1 has 2"),
        ("x,y\n1,10%\n", "'10%' is not a number; write the number alone"),
        ("x,y\n1,$2\n", "write the number alone"),
        ("x,y\n1,NA\n", r"row 2, column 2 \(y\): 'NA' is not a number; remove the row"),
        ("x;y\n[m];[s]\n1;2\n", r"row 2, column 1 \(x\): '\[m\]' is not a number; remove the row"),
        ("t,y\n2024-01-31,1\n", "in place of dates or times give days"),
        ("t;y\n31.01.2024;1\n", "in place of dates or times give days"),
        ("t,y\n00:01,1\n", "in place of dates or times give days"),
        ("1.5D-03 2\n2.5D-03 3\n", "'1.5D-03' is not a number; write 1.5E-03"),
        ("TIME,CH1\ns,V\n0,1\n1,2\n", "'s' is not a number; remove the row, and any others"),
        ('"x" "y"\n"1" 2 3\n"2" 3 4\n', "row 2 has 3 cells.*as R writes them, put a name for"),
        ("% x y\n2 3\n3 4\n", "row 2 has 2 cells, but row 1 has 3.* is a title, remove it"),
        ("x,y\n1,2\n3,4\n* by hand\n", "row 4 has 1 cell.*if row 4 is no point, remove it"),
        ("x;y\n1,2\n3,4\n", "row 2 has 1 cell, but row 1 has 2, with ; between them"),
        ("1,5,2\n2,6,3\n3,7,4\n", "1,5,2, can be read in two ways: 1 as the row's number .* 1,5"),
        ("1 100 5\n2 200 6\n", "can be read in two ways: .* or 1 100 as one number"),
        ("5,1,2\n9,3,4\n", "3 columns, and which are x and y is not clear"),
        ("a,b,c,d\n1,2,3,4\n", "4 columns, and which are x and y is not clear"),
        ("x,2\n3,4\n", r"row 1, column 1: 'x' is not a number"),
        ("1,2\n1,3\n", "all x are 1; a curve needs at least two different x"),
        ("1000000000,1\n1000000001,2\n", "too little for numbers of that size; subtract"),
        ('1,2\n"3,4\n', r'row 2: its quotation marks \("\) don\'t match .*; remove them'),
        ("x,y\n0,5,1,2\n", "row 2 has 4 cells, but row 1 has 2, with , between them; if these"),
        ("0,5;1.5\n0.5;1.5\n", r"row 1, column 1: '0,5' is not a number with a decimal point"),
        (b"1,2\n3,\xff\n", "row 2, column 2: 'ÿ' is not a number"),
        (b"1,2\n3,\x81\n", "row 2 is not UTF-8 text"),
        ("1 200,5\n2 300,7\n", "can be read in two ways"),
        (b"1,2\n3,\x004\n", "row 2"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "row 2 is not text"),
        (b"PK\3\4\x14\0\6\0", "this is a workbook, such as Excel's .xlsx, not CSV; save"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "this is an old Excel workbook"),
        (b"\x1f\x8b\x08\0", "this is a compressed file"),
        ("{\\rtf1\\ansi\n1,2\\\n3,4}\n", "this is RTF"),
        ("\ufeff<!DOCTYPE html>\n<td>1</td><td>2</td>\n", "this is HTML or XML"),
        ('[{"x": 1, "y": 2},\n{"x": 2, "y": 3}]\n', "this is JSON"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert "points.csv" in str(caught.value)


@pytest.mark.parametrize("word", ["#DIV/0!", "#N/A", "#NV", "#WERT!", "#¡VALOR!", "#NOM?", "####"])
@pytest.mark.parametrize("delimiter", [";", "\t", ",", " ;"])
def test_a_spreadsheets_error_is_no_comment(tmp_path: Path, word: str, delimiter: str) -> None:
    """Below x it begins the line, as a comment does."""
    message = "is not a number: a spreadsheet has no value here; mend its formula, or remove"
    for column, cells in enumerate(((word, "2"), ("2", word)), 1):
        row = delimiter.join(cells)
        with pytest.raises(JobError, match=rf"row 3, column {column} \([xy]\): .*{message}"):
            read(tmp_path, f"x{delimiter}y\n1{delimiter}2\n{row}\n3{delimiter}4\n")


@pytest.mark.parametrize(
    "comment", ["#", "##", "## part, two", "#NASA; 1969", "#N", "# 1,2", "#Achtung!", "#\t1\t2"]
)
def test_comments_are_passed_over(tmp_path: Path, comment: str) -> None:
    assert read(tmp_path, f"x,y\n1,2\n{comment}\n3,4\n").x.tolist() == [1, 3]


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file"):
        read_points(tmp_path / "missing.csv")
    with pytest.raises(JobError, match="a folder"):
        read_points(tmp_path)
    with pytest.raises(JobError, match="can't be read: Not a directory"):
        (tmp_path / "file").touch()
        read_points(tmp_path / "file" / "points.csv")


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    with path.open("wb") as stream:
        stream.truncate(33 * 1024 * 1024)  # sparse: nothing is written
    with pytest.raises(JobError, match="larger than 32 MiB"):
        read_points(path)


FINITE = st.floats(
    min_value=-MAGNITUDE_LIMIT, max_value=MAGNITUDE_LIMIT, allow_nan=False, allow_infinity=False
)


@given(
    pairs=st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=20),
    delimiter=st.sampled_from([",", ";", "\t", "  "]),
    newline=st.sampled_from(["\n", "\r\n"]),
    header=st.booleans(),
    index=st.sampled_from([None, 0, 1]),
    bom=st.booleans(),
)
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[float, float]],
    delimiter: str,
    newline: str,
    header: bool,
    index: int | None,
    bom: bool,
) -> None:
    pairs = [*pairs, (pairs[0][0] / 2 + 1.5, 0.0)]
    xs = [x for x, _ in pairs]
    assume(max(xs) - min(xs) > 1e-7 * max(map(abs, xs)))
    rows = [[repr(x), repr(y)] for x, y in pairs]
    names = ["a", "b"]
    if index is not None:
        rows = [[str(number), *row] for number, row in enumerate(rows, start=index)]
        names = ["i", *names]
    lines = [delimiter.join(row) for row in ([names, *rows] if header else rows)]
    content = ("\ufeff" if bom else "") + newline.join(lines) + newline
    points = read(tmp_path_factory.mktemp("csv"), content)
    assert list(zip(points.x.tolist(), points.y.tolist(), strict=True)) == pairs


@given(st.binary(max_size=200))
def test_any_bytes_are_points_or_a_job_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    try:
        points = read(tmp_path_factory.mktemp("csv"), content)
    except JobError as error:
        assert "points.csv" in str(error)
    else:
        assert np.isfinite(points.x).all() and np.isfinite(points.y).all()
        assert points.distinct >= 2


def test_the_stand_in_is_what_its_recipe_makes() -> None:
    assert stand_in.PATH.read_text() == stand_in.csv_text()
    points = read_points(stand_in.PATH)
    assert len(points.x) == 20
    for asked in (-0.5, 0.1, 3.0):
        assert points.x.min() < asked < points.x.max()
    noise = points.y - stand_in.truth(points.x)
    assert 0.5 * stand_in.NOISE < noise.std() < 2 * stand_in.NOISE


def test_the_truth_and_its_derivative_belong_together() -> None:
    x, step = np.linspace(-1, 4, 50), 1e-5
    slope = (stand_in.truth(x + step) - stand_in.truth(x - step)) / (2 * step)
    np.testing.assert_allclose(stand_in.truth_derivative(x), slope, atol=1e-9)
