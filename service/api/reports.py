"""``/models/{model}/report``: the report that training wrote, as a page, and its files.

A report is untrusted text, and turning hostile Markdown into HTML can take seconds: it is rendered
once, in a thread, and only up to a size limit; a longer one is shown as plain text.
"""

import asyncio
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from contract.errors import ArtifactError
from contract.store import NO_ROOM
from service.api.models import Name
from service.runtime.cost import Cost
from service.runtime.loader import Model
from service.runtime.resources import WorkPool
from service.web.errors import NotFound
from service.web.markdown import to_html
from service.web.openapi import problems
from service.web.state import services
from service.web.templating import templates

REPORT_FILE = "report.md"
PLOT_SUFFIX = ".png"
# What can be downloaded besides plots.
TEXTS = {
    REPORT_FILE: "text/markdown; charset=utf-8",
    "history.csv": "text/csv; charset=utf-8",
    "metrics.json": "application/json",
}
# The shipped reports have 14 KB at most; 64 KiB of hostile Markdown take some 1.5 s.
MARKDOWN_BYTES = 64 * 1024
# Larger ones aren't shown.
REPORT_BYTES = 1024 * 1024
FILE_BYTES = 8 * 1024 * 1024
# Rendered reports that are kept, and how large each may be.
KEPT_PAGES = 32
PAGE_BYTES = 1024 * 1024
# Upper bounds for rendering one byte: seconds, and bytes of memory.
SECONDS_OF_BYTE, BYTES_OF_BYTE = 2e-5, 400


def router() -> APIRouter:
    """The report, its plots and its data."""
    routes = APIRouter(prefix="/models/{model}/report", tags=["models"])
    pages = Pages()

    @routes.get(
        "",
        summary="Read a model's report",
        response_class=HTMLResponse,
        responses=problems(404, 422, 503),
    )
    async def report(request: Request, model: Name) -> Response:
        """The training report: data, fit, metrics and plots, for people."""
        loaded = services(request).registry.get(model)
        if REPORT_FILE not in loaded.manifest.files:
            raise NotFound("This version was published without a report")
        context = {
            "title": f"{loaded.manifest.model} version {loaded.manifest.version}",
            "report": await pages.get(loaded, services(request).resources.pages),
            "files": [name for name in TEXTS if name in loaded.manifest.files],
            "plots": sorted(name for name in loaded.manifest.files if is_plot(name, loaded)),
            "precisions": {
                name: function.graph.precision for name, function in loaded.functions.items()
            },
        }
        return templates.TemplateResponse(request, "report.html", context)

    @routes.get(
        "/{file}",
        summary="Get a plot or the data of a model's report",
        response_class=Response,
        responses={
            200: {
                "content": {kind.partition(";")[0]: {} for kind in ["image/png", *TEXTS.values()]}
            },
            **problems(404, 422, 503),
        },
    )
    async def file(request: Request, model: Name, file: str) -> Response:
        """A plot, report.md, history.csv or metrics.json, as the manifest lists them."""
        loaded = services(request).registry.get(model)
        headers = {}
        if is_plot(file, loaded):
            kind = "image/png"
        elif file in TEXTS and file in loaded.manifest.files:
            kind = TEXTS[file]
            name = f"{loaded.manifest.model}-{loaded.manifest.version}-{file}"
            headers["content-disposition"] = f'attachment; filename="{name}"'
        else:
            raise NotFound("The report has no such file")
        pool = services(request).resources.pages
        content = await pool.in_thread(Cost(0.001, FILE_BYTES), _read, loaded, file, FILE_BYTES)
        return Response(content, media_type=kind, headers=headers)

    return routes


class Pages:
    """Reports as HTML, each rendered once however many ask for it at a time."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, int, str], asyncio.Future[str]] = {}

    async def get(self, model: Model, pool: WorkPool) -> str:
        """The report of ``model``, rendered in ``pool``. Raises NotFound or QueueFull."""
        manifest = model.manifest
        key = (manifest.model, manifest.version, manifest.files[REPORT_FILE].sha256)
        page = self._pages.get(key)
        if page is None:
            pool.check()
            cost = Cost(MARKDOWN_BYTES * SECONDS_OF_BYTE, MARKDOWN_BYTES * BYTES_OF_BYTE)
            page = asyncio.ensure_future(pool.in_thread(cost, _page, model))
            self._pages[key] = page
            while len(self._pages) > KEPT_PAGES:
                self._pages.pop(next(iter(self._pages)))
        try:
            return await asyncio.shield(page)
        except BaseException:
            if page.done():
                self._pages.pop(key, None)  # the next one tries again
            raise


def _page(model: Model) -> str:
    """The report as HTML, at most ``PAGE_BYTES`` of it unless it is plain text."""
    text = _read(model, REPORT_FILE, REPORT_BYTES).decode("utf-8", "replace")
    if len(text) <= MARKDOWN_BYTES:
        page = render(text, model)
        if len(page) <= PAGE_BYTES:
            return page
    return f"<article><p>Too long to be laid out.</p><pre>{escape(text)}</pre></article>"


def _read(model: Model, name: str, limit: int) -> bytes:
    """A file of the artifact. Raises NotFound if it can't be read, or is over ``limit`` bytes."""
    if model.manifest.files[name].bytes > limit:
        raise NotFound(f"{name} has more than {limit} bytes, and is not shown")
    try:
        return model.artifact.read(name)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise NotFound(f"{name} can't be read any more") from None
    except ArtifactError:
        raise NotFound(f"{name} can't be read any more, or has changed") from None


def is_plot(name: str, model: Model) -> bool:
    """Is ``name`` a picture that the manifest lists?"""
    return name.endswith(PLOT_SUFFIX) and name in model.manifest.files


def render(text: str, model: Model) -> str:
    """The report as HTML: its own plots by their address here, any other picture as its text."""
    page = to_html(text, lambda name: f"report/{name}" if is_plot(name, model) else None)
    return f"<article>{page}</article>" if page else f"<p>{REPORT_FILE} is empty</p>"
