"""The panel for one's own points: read, fitted in the page, against numpy; nothing is uploaded."""

import re

import numpy as np
import pytest
from numpy.polynomial import Chebyshev
from playwright.sync_api import Page, expect

from contract.intervals import quantile
from tests.browser.conftest import PHONE, Visit, Visitor, shown
from tests.server_process import ServerProcess


def points(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    x = np.sort(generator.uniform(-2, 5, count)).round(4)
    return x, (np.sin(x) + 0.1 * generator.normal(size=count)).round(4)


def csv(x: np.ndarray, y: np.ndarray) -> str:
    return "x,y\n" + "\n".join(f"{a},{b}" for a, b in zip(x, y, strict=True))


def figure(page: Page, name: str) -> str:
    return page.locator(f"#points-result [data-figure='{name}']").text_content() or ""


def left_out(x: np.ndarray, y: np.ndarray, degree: int) -> float:
    """The mean squared error at each point of a fit to the others."""
    total = 0.0
    for index in range(len(x)):
        kept = np.arange(len(x)) != index
        fit = Chebyshev.fit(x[kept], y[kept], degree, domain=[x[0], x[-1]])
        total += float((fit(x[index]) - y[index]) ** 2)
    return total / len(x)


def band(
    x: np.ndarray, y: np.ndarray, degree: int, at: float, order: int
) -> tuple[float, float, float]:
    """f or f′ at a place with its 95 % interval, by the normal equations."""
    basis = np.vander(x, degree + 1, increasing=True)
    inverse = np.linalg.inv(basis.T @ basis)
    coefficients = inverse @ basis.T @ y
    freedom = len(x) - degree - 1
    variance = float(np.sum((y - basis @ coefficients) ** 2)) / freedom
    row = np.array([at**k if not order else k * at ** max(k - 1, 0) for k in range(degree + 1)])
    half = quantile(0.95, freedom) * float(np.sqrt(variance * row @ inverse @ row))
    value = float(row @ coefficients)
    return value, value - half, value + half


def test_a_polynomial_with_its_band_and_nothing_uploaded(visit: Visit) -> None:
    page = visit.open()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    x, y = points()
    expect(page.locator("#points-result")).to_be_hidden()
    page.locator("#points-text").fill(csv(x, y))
    expect(page.locator("#points-plots circle.data")).to_have_count(len(x))
    chosen = int(page.locator("#points-degree-name").text_content() or "")
    assert 3 <= chosen <= 8
    page.locator("#points-x").fill("1.5")
    for degree in (chosen, 3, 6):
        page.locator("#points-degree").fill(str(degree))
        expect(page.locator("#points-degree-name")).to_have_text(str(degree))
        fit = Chebyshev.fit(x, y, degree)
        assert shown(figure(page, "mse")) == pytest.approx(np.mean((fit(x) - y) ** 2), rel=1e-3)
        number = re.match(r"[\d.e−]+", figure(page, "leave-one-out"))
        assert number
        assert shown(number[0]) == pytest.approx(left_out(x, y, degree), rel=1e-3)
        for order, name in enumerate(("value", "slope")):
            value, low, high = band(x, y, degree, 1.5, order)
            assert shown(figure(page, name)) == pytest.approx(value, rel=1e-4)
            words = figure(page, f"interval-{order}").removeprefix("95 %: ").split(" to ")
            assert [shown(word) for word in words] == pytest.approx([low, high], rel=1e-3)
    expect(page.locator("#points-plots path.band")).to_have_count(2)
    expect(page.locator("#points-plots .tangent")).to_have_count(1)
    # What leave-one-out says of each degree.
    page.get_by_text("The error of every degree").click()
    rows = page.locator("#points-degrees tbody tr").all_inner_texts()
    assert len(rows) == 13
    for row in rows[:7]:
        degree, _, error = row.split("\t")
        assert shown(error) == pytest.approx(left_out(x, y, int(degree)), rel=1e-2)
    assert asked == []


@pytest.mark.parametrize(
    "text",
    [
        "x;y\n0,5;1,25\n1;2\n1,5;2,5\n2;3,25",
        "0.5\t1.25\n1\t2\n1.5\t2.5\n2\t3.25\n",
        "0.5 1.25\r\n1 2\r\n1.5 2.5\r\n2 3.25",
        "\ufeffid,x,y\n1,0.5,1.25\n2,1,2\n3,1.5,2.5\n4,2,3.25\n\n",
        "# measured\n\tx\ty\n0\t0.5\t1.25\n1\t1\t2\n2\t1.5\t2.5\n3\t2\t3.25\n\t\t\n",
    ],
)
def test_reads_tables_as_programs_write_them(visit: Visit, text: str) -> None:
    page = visit.open()
    page.locator("#points-file").set_input_files(
        {"name": "points.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    expect(page.locator("#points-plots circle.data")).to_have_count(4)
    page.locator("#points-degree").fill("1")
    page.locator("#points-x").fill("1")
    slope, intercept = np.polyfit([0.5, 1, 1.5, 2], [1.25, 2, 2.5, 3.25], 1)
    assert shown(figure(page, "slope")) == pytest.approx(slope, rel=1e-5)
    assert shown(figure(page, "value")) == pytest.approx(slope + intercept, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n2,3\n3,5", "3 points: x is column 1, y is column 2."),
        ("x y\n0,5 1\n1 2\n2 5", "y is column 2; line 1 names the columns; commas are decimal"),
        ("1,2.5,3\n2,3.5,4\n3,5,5", "3 points: x is column 2 of 3, y is column 3 of 3."),
        ("1;2;3\n2;3;4\n3;5;5", "3 points: x is column 2 of 3, y is column 3 of 3."),
        ("n,a,b\n1,2,3\n2,3,4\n3,5,5", "x is column 2 of 3, y is column 3 of 3; line 1 names"),
        ("y,z,x\n1,2,3\n2,3,4\n3,5,5", "x is column 3 of 3, y is column 1 of 3; line 1 names"),
        ("1,2,\n2,3,\n3,5,", "3 points: x is column 1, y is column 2."),
        ("sep=;\r\ns;F\r\n0,5;1\r\n1;2\r\n2;–5", "; line 2 names the columns; commas are"),
    ],
)
def test_says_what_it_reads(visit: Visit, text: str, said: str) -> None:
    page = visit.open()
    page.locator("#points-text").fill(text)
    expect(page.locator("#points-read")).to_contain_text(said)
    expect(page.locator("#points-plots circle.data")).to_have_count(3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3\n2,3,4\n3,4,5", "can be read in two ways: 1 may count the rows"),
        ("1,2,3\n4,3,4\n9,4,5", "3 columns, and which are x and y is not clear"),
        ("1,2,3,4\n2,3,4,5\n3,4,5,6", "4 columns, and which are x and y is not clear"),
        ("1\n2\n3", "Line 1 is no pair"),
        ("1,2\n0x10,2\n3,4", "Line 2 is no pair"),
        ("1,2\n#DIV/0!,2\n3,4", "Line 2 is no pair"),
        ("1,100\t2\n900\t1\n1,300\t4", "1,100 may be 1100 or 1.100: write it without"),
        ("1,100\t0.45\n900\t1\n1,300\t4", "Some numbers have a point (0.45), others a comma"),
        ("1,2\n2,3,4\n3,4", "Line 2 has 3 cells, but line 1 has 2"),
        ("1,2\n2,oops\n3,4", "Line 2 is no pair"),
        ("1,2\n1,3\n2,4", "three different x"),
        ("\n".join(f"{n},{n}" for n in range(201)), "There are 201 points; this page takes 200"),
        ("1,1e308\n2,-1e308\n3,1e308\n4,0", "Line 1 has a number over 1e+100: too large"),
        ("1e308,1\n-1e308,2\n0,3\n1,4", "Line 1 has a number over 1e+100: too large"),
    ],
)
def test_says_what_is_wrong_and_shows_no_old_result(visit: Visit, text: str, words: str) -> None:
    page = visit.open()
    page.get_by_role("button", name="Take an example").click()
    expect(page.locator("#points-result")).to_be_visible()
    page.locator("#points-text").fill(text)
    expect(page.locator("#points-problem")).to_contain_text(words)
    expect(page.locator("#points-result")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "content", "words", "left"),
    [
        ("book.xlsx", b"PK\x03\x04\x14\x00\x06\x00", "not text: save the table as CSV", ""),
        ("photo.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not text: save the table", ""),
        ("long.csv", b"1,2\n" * 500_000, "more text than so few need; this page takes 200", ""),
        ("empty.csv", b"", "There are no points yet", ""),
        ("typo.csv", b"1,2\n2,3x\n3,4", "Line 2 is no pair", "1,2\n2,3x\n3,4"),
    ],
)
def test_a_file_of_something_else_is_refused_in_words(
    visit: Visit, name: str, content: bytes, words: str, left: str
) -> None:
    """What could be mended by hand is left in the field, and nothing else."""
    page = visit.open()
    page.get_by_role("button", name="Take an example").click()
    page.locator("#points-file").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    expect(page.locator("#points-problem")).to_contain_text(words)
    expect(page.locator("#points-result")).to_be_hidden()
    expect(page.locator("#points-text")).to_have_value(left)


def test_an_emptied_field_is_no_error(visit: Visit) -> None:
    page = visit.open()
    page.locator("#points-text").fill("1")
    expect(page.locator("#points-problem")).to_be_visible()
    page.locator("#points-text").fill("")
    expect(page.locator("#points-problem")).to_be_hidden()


def test_on_a_phone(visitor: Visitor, server: ServerProcess) -> None:
    with visitor(server, width=PHONE) as visit:
        page = visit.open()
        page.get_by_role("button", name="Take an example").click()
        expect(page.locator("#points-plots svg")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE
        page.locator("#points-x").fill("9")
        expect(page.locator("#points-result [data-figure='interval-1']")).to_contain_text("guess")
