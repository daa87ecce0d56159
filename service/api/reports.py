"""``/models/{model}/report``: the report that training wrote, as a page, and its files.

A report is untrusted text, and turning hostile Markdown into HTML can take seconds: it is rendered
once, in a thread, and only up to a size limit; a longer one is shown as plain text.
"""

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
from service.web.openapi import contents, problems
from service.web.rendered import Rendered, lay_out
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
# Larger ones aren't shown.
REPORT_BYTES = 1024 * 1024
FILE_BYTES = 8 * 1024 * 1024


def router() -> APIRouter:
    """The report, its plots and its data."""
    routes = APIRouter(prefix="/models/{model}/report", tags=["models"])
    pages = Rendered()

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
            "report": await _report(loaded, pages, services(request).resources.pages),
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
            200: contents("image/png", *TEXTS.values()),
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


async def _report(model: Model, pages: Rendered, pool: WorkPool) -> str:
    """The report of ``model`` as HTML. Raises NotFound or QueueFull."""

    def text() -> str:
        return _read(model, REPORT_FILE, REPORT_BYTES).decode("utf-8", "replace")

    def plot(name: str) -> str | None:
        """Its own plots by their address here; any other picture is shown as its text."""
        return f"report/{name}" if is_plot(name, model) else None

    manifest = model.manifest
    key = (manifest.model, manifest.version, manifest.files[REPORT_FILE].sha256)
    page = await pages.get(key, lambda: lay_out(pool, text, plot))
    return f"<article>{page}</article>" if page else f"<p>{REPORT_FILE} is empty</p>"


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
