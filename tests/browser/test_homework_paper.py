"""/homework on paper, which can't be scrolled: no print-out or code is cut off."""

import pytest

from tests.browser.conftest import Visitor
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
