"""Markdown becomes HTML that can do no harm; formulas become MathML."""

import re

import pytest

from service.web.markdown import to_html


def test_formulas_are_mathml() -> None:
    page = to_html("Inline $x^2$ and\n\n$$\\frac{\\partial L}{\\partial w_{10}}$$\n")
    assert page.count("<math ") == 2
    assert "<mfrac>" in page
    assert "$" not in page


def test_what_is_wide_can_be_scrolled_by_keys() -> None:
    page = to_html("```python\n<pre>\n```\n\n    code\n\n$$x$$\n")
    assert page.count('<pre tabindex="0">') == 2
    assert page.count('<div class="math block" tabindex="0">') == 1
    assert "&lt;pre&gt;" in page


def test_a_prime_is_not_raised_twice() -> None:
    assert '<mi>&#x003C3;</mi><mo lspace="0" rspace="0">&#x02032;</mo>' in to_html("$\\sigma'(z)$")
    assert "<msup>" in to_html("$a^2$")


@pytest.mark.parametrize("formula", ["(-0.5) \\cdot 2", "y = -0.5", "2 \\cdot -0.5"])
def test_a_sign_is_set_as_a_sign(formula: str) -> None:
    assert '<mo form="prefix">&#x02212;</mo><mn>0.5</mn>' in to_html(f"${formula}$")
    assert "prefix" not in to_html("$(a) - 0.5$")


def test_money_is_no_formula() -> None:
    assert to_html("It costs $5 and $6.") == "<p>It costs $5 and $6.</p>\n"


@pytest.mark.parametrize(
    "formula",
    [
        "\\text{<script>alert(1)</script>}",
        "\\href{javascript:alert(1)}{x}",
        "\\style{position:fixed}{x}",
        "\\text{<img src=x onerror=alert(1)>}",
        "\\text{</math><script>}",
        "\\frac{",
        "{" * 1900,
        "x" * 5000,
    ],
)
def test_a_formula_that_is_none_is_shown_as_text(formula: str) -> None:
    page = to_html(f"${formula}$")
    assert "<code>" in page
    for tag in ("<script", "<img", "href=", "style="):
        assert tag not in page


def test_html_is_shown_as_text_and_pictures_only_by_address() -> None:
    page = to_html("<b>x</b> ![plot](a.png) ![evil](http://e/x.png)", {"a.png": "p/a.png"}.get)
    assert "<b>" not in page
    assert 'src="p/a.png"' in page
    assert "http://e" not in page


def test_cells_of_a_table_of_many_columns_have_their_headings() -> None:
    row = "| 1 | 2 | 3 | 4 |"
    page = to_html(
        f"| a | b | c | d |\n|---|---|---|---|\n{row}\n{row}\n\n| a | b |\n|--|--|\n| 1 | 2 |"
    )
    assert page.count('class="wide"') == 1
    assert re.findall(r'data-label="(\w)">(\d)', page) == 2 * list(zip("abcd", "1234", strict=True))
    seven = to_html("|a" * 7 + "|\n" + "|-" * 7 + "|\n" + "|1" * 7 + "|")
    assert 'class="widest"' in seven
    # A heading can't end the attribute.
    assert "<b" not in to_html('| "><b> | b | c | d |\n|---|---|---|---|\n' + row)
