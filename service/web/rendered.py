"""Pages that take long to make: each is made once, however many ask for it at a time, and kept."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from html import escape

from service.runtime.cost import Cost
from service.runtime.resources import WorkPool
from service.web.markdown import to_html

Plot = Callable[[str], str | None]

KEPT = 32
# The shipped reports have 14 KB at most, the homework some 30; 64 KiB of hostile Markdown take some
# 1.5 s.
MARKDOWN_BYTES = 64 * 1024
# The largest page that is laid out.
PAGE_BYTES = 1024 * 1024
# Upper bounds for laying out one byte: seconds, and bytes of memory.
SECONDS_OF_BYTE, BYTES_OF_BYTE = 2e-5, 400
LAYING_OUT = Cost(MARKDOWN_BYTES * SECONDS_OF_BYTE, MARKDOWN_BYTES * BYTES_OF_BYTE)


class Rendered:
    """The last ``KEPT`` texts that were made, by what they were made of."""

    def __init__(self) -> None:
        self._texts: dict[Hashable, asyncio.Future[str]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[str]]) -> str:
        """The text of ``key``, by ``make`` unless it is there. Raises what ``make`` raises."""
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = asyncio.ensure_future(make())
            while len(self._texts) > KEPT:
                self._texts.pop(next(iter(self._texts)))
        try:
            return await asyncio.shield(text)
        except BaseException:
            if text.done():
                self._texts.pop(key, None)  # the next one tries again
            raise


async def lay_out(pool: WorkPool, read: Callable[[], str], plot: Plot) -> str:
    """Markdown as HTML, made in ``pool``: what ``read`` gives, or that text where it is too long.

    ``plot`` gives the address of a picture. Raises QueueFull, and what ``read`` raises.
    """
    pool.check()
    return await pool.in_thread(LAYING_OUT, _laid_out, read, plot)


def _laid_out(read: Callable[[], str], plot: Plot) -> str:
    text = read()
    if len(text) <= MARKDOWN_BYTES:
        page = to_html(text, plot)
        if len(page) <= PAGE_BYTES:
            return page
    return f"<p>Too long to be laid out.</p><pre>{escape(text)}</pre>"
