"""/homework on paper, which can't be scrolled: no print-out or code is cut off; its formulas."""

import pytest

from tests.browser.conftest import PHONE, Visitor
from tests.server_process import ServerProcess

A4 = 657  # pixels of width between the margins: 210 mm less 2 × 18 mm, at 96 per inch
CUT_OFF = """() => [...document.querySelectorAll("pre, table")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1)
  .map((e) => e.innerText.slice(0, 60))"""


@pytest.mark.parametrize("language", ["en", "zh-Hant"])
def test_nothing_is_cut_off_on_a4(visitor: Visitor, server: ServerProcess, language: str) -> None:
    with visitor(server, width=A4 + 32) as visit:  # the page's own padding of 16 on either side
        page = visit.open(f"/homework?lang={language}")
        assert page.locator("pre").count() >= 3
        page.emulate_media(media="print")
        assert page.evaluate(CUT_OFF) == []


FORMULAS_CUT_OFF = """() => [...document.querySelectorAll(".math")]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
    || e.getBoundingClientRect().right > document.documentElement.clientWidth)
  .map((e) => e.innerText.slice(0, 60))"""
# Heights of the brackets round matrices, and of what they hold.
BRACKETS = """() => [...document.querySelectorAll("mtable")].map((table) =>
  [table.previousElementSibling, table].map((e) => e.getBoundingClientRect().height))"""
# How far below its base a subscript begins, and how much smaller it is.
SUBSCRIPTS = """() => [...document.querySelectorAll("msub")].map(({children: [base, sub]}) =>
  [sub.getBoundingClientRect().bottom - base.getBoundingClientRect().bottom,
   parseFloat(getComputedStyle(sub).fontSize) / parseFloat(getComputedStyle(base).fontSize)])"""


@pytest.mark.parametrize("language", ["en", "zh-Hant"])
def test_formulas_are_set_properly_on_a_phone(
    visitor: Visitor, server: ServerProcess, language: str
) -> None:
    with visitor(server, width=PHONE) as visit:
        page = visit.open(f"/homework?lang={language}")
        assert page.locator("math").count() > 30
        assert page.evaluate(FORMULAS_CUT_OFF) == []
        brackets = page.evaluate(BRACKETS)
        assert len(brackets) >= 7
        assert all(bracket >= 0.9 * table for bracket, table in brackets), brackets
        subscripts = page.evaluate(SUBSCRIPTS)
        assert all(lower > 0 and size < 0.9 for lower, size in subscripts), subscripts
