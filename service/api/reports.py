"""``/models/{model}/report``: the report that training wrote, as a page with its plots."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt
from starlette.responses import Response

from service.api.models import Name
from service.runtime.loader import Model
from service.web.errors import NotFound
from service.web.openapi import problems
from service.web.state import services
from service.web.templating import templates

REPORT_FILE = "report.md"
PLOT_SUFFIX = ".png"

# HTML in the markdown is shown as text: the report is data, and the page trusts no data.
markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def router() -> APIRouter:
    """The report and its plots."""
    routes = APIRouter(prefix="/models/{model}/report", tags=["models"])

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
        text = loaded.artifact.read(REPORT_FILE).decode("utf-8", "replace")
        context = {
            "title": f"{loaded.manifest.model} version {loaded.manifest.version}",
            "report": render(text, loaded),
        }
        return templates.TemplateResponse(request, "report.html", context)

    @routes.get(
        "/{plot}",
        summary="Get a plot of a model's report",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **problems(404, 422, 503)},
    )
    async def plot(request: Request, model: Name, plot: str) -> Response:
        """A picture that the report shows; only those that the manifest lists."""
        loaded = services(request).registry.get(model)
        if not is_plot(plot, loaded):
            raise NotFound("The report has no such plot")
        return Response(loaded.artifact.read(plot), media_type="image/png")

    return routes


def is_plot(name: str, model: Model) -> bool:
    """Is ``name`` a picture that the manifest lists?"""
    return name.endswith(PLOT_SUFFIX) and name in model.manifest.files


def render(text: str, model: Model) -> str:
    """The report as HTML: its own plots by their address here, any other picture as its text."""
    tokens = markdown.parse(text)
    for token, content, end in zip(tokens, tokens[1:], tokens[2:], strict=False):
        # A screen reader announces a header, so an empty one must not be one.
        if token.type == "th_open" and not content.content:
            token.tag = end.tag = "td"
    for token in tokens:
        if token.type == "table_open":
            token.attrSet("tabindex", "0")  # wide tables scroll, by the arrow keys too
        # The content policy forbids style attributes, by which columns are aligned.
        style = str(token.attrs.pop("style", ""))
        if style.startswith("text-align:"):
            token.attrSet("class", style.removeprefix("text-align:"))
        for child in token.children or ():
            if child.type == "image":
                name = str(child.attrs.get("src", "")).removeprefix("./")
                if is_plot(name, model):
                    child.attrs["src"] = f"report/{name}"
                else:
                    child.type, child.content = "text", child.content
    rendered: Any = markdown.renderer.render(tokens, markdown.options, {})
    return (
        f"<article>{rendered}</article>" if rendered else f"<p>{escape(REPORT_FILE)} is empty</p>"
    )
