"""Markdown to HTML for pages: tables, formulas as MathML, and no active content.

HTML in the Markdown is shown as text. Formulas are LaTeX between dollar signs, as GitHub and
notebooks read them; MathML is made of them here, so that no script sets them.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import fromstring

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

log = logging.getLogger("gradserve")

NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
ELEMENTS = frozenset(
    [
        "math",
        "mfrac",
        "mi",
        "mn",
        "mo",
        "mover",
        "mpadded",
        "mphantom",
        "mroot",
        "mrow",
        "mspace",
        "msqrt",
        "mstyle",
        "msub",
        "msubsup",
        "msup",
        "mtable",
        "mtd",
        "mtext",
        "mtr",
        "munder",
        "munderover",
    ]
)
ATTRIBUTES = frozenset(
    [
        "accent",
        "columnalign",
        "display",
        "displaystyle",
        "fence",
        "form",
        "linethickness",
        "lspace",
        "mathvariant",
        "maxsize",
        "minsize",
        "rspace",
        "scriptlevel",
        "separator",
        "stretchy",
        "width",
    ]
)
WIDE, WIDEST = 4, 7  # columns from which a table is laid out otherwise on narrow screens
MOST_LABELS = 40  # columns; a table of more only scrolls: a label in every cell makes a large page
# The prime is raised by itself: as a superscript it would be raised twice, to a speck.
PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>")
# A sign, not a subtraction, which would be set with room on either side. Older converters take the
# dot for a variable (mi).
SIGN = re.compile(r"(<m[io][^>]*>&#x(?:00028|0002C|0003D|000B7);</m[io]>)<mo>&#x02212;</mo>")
MAX_FORMULA = 2000  # characters; a longer one is shown as it is


def to_html(text: str, picture: Callable[[str], str | None] = lambda _: None) -> str:
    """``text`` as HTML. ``picture`` gives the address of a picture by its name in the text.

    A picture without an address is shown as its text.
    """
    tokens = _parser.parse(text)
    for token, content, end in zip(tokens, tokens[1:], tokens[2:], strict=False):
        # A screen reader announces a header, so an empty one must not be one.
        if token.type == "th_open" and not content.content:
            token.tag = end.tag = "td"
    _label_cells(tokens)
    for token in tokens:
        if token.type == "table_open":
            token.attrSet("tabindex", "0")  # wide tables scroll, by the arrow keys too
        # The content policy forbids style attributes, by which columns are aligned.
        style = str(token.attrs.pop("style", ""))
        if style.startswith("text-align:"):
            token.attrSet("class", style.removeprefix("text-align:"))
        for child in token.children or ():
            if child.type == "image":
                address = picture(str(child.attrs.get("src", "")).removeprefix("./"))
                if address is not None:
                    child.attrs["src"] = address
                else:
                    child.type = "text"
    html = str(_parser.renderer.render(tokens, _parser.options, {}))
    # Code and formulas that are wide scroll as tables do. No text of the page is written like this.
    for tag in ("<pre>", '<div class="math block">'):
        html = html.replace(tag, f'{tag[:-1]} tabindex="0">')
    return html


def _label_cells(tokens: Sequence[Token]) -> None:
    """Give each cell of a table of many columns its heading: on a phone a row becomes a list."""
    heads: list[str] = []
    column = 0
    table = None
    for token, content in pairwise(tokens):
        if token.type == "table_open":
            table, heads = token, []
        elif token.type == "th_open":
            heads.append(content.content)
        elif token.type == "thead_close" and len(heads) > MOST_LABELS:
            heads = []
        elif token.type == "thead_close" and table is not None and len(heads) >= WIDE:
            table.attrSet("class", "widest" if len(heads) >= WIDEST else "wide")
        elif token.type == "tr_open":
            column = 0
        elif token.type == "td_open" and len(heads) >= WIDE:
            token.attrSet("data-label", heads[column] if column < len(heads) else "")
            column += 1


def _formula(latex: str, options: Mapping[str, Any]) -> str:
    """LaTeX as MathML; as it is where it can't be read."""
    if len(latex) <= MAX_FORMULA:
        try:
            made = convert(latex, display="block" if options["display_mode"] else "inline")
            made = PRIME.sub(r'\1<mo lspace="0" rspace="0">&#x02032;</mo>', made)
            made = SIGN.sub(r'\1<mo form="prefix">&#x02212;</mo>', made)
            if _is_harmless(made):
                return made
        except Exception:  # the converter raises anything at all on what it can't read
            log.debug("a formula of %d characters could not be read", len(latex))
    return f"<code>{escape(latex)}</code>"


def _is_harmless(mathml: str) -> bool:
    """Only what plain formulas need: the converter lets ``\\text{<script>}`` pass."""
    return all(
        element.tag.removeprefix(NAMESPACE) in ELEMENTS and element.attrib.keys() <= ATTRIBUTES
        for element in fromstring(mathml).iter()  # noqa: S314 no DTD fits in a formula
    )


_parser = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .use(dollarmath_plugin, renderer=_formula, allow_space=False, double_inline=True)
)
