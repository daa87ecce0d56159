"""``/docs`` and ``/redoc``: the API documentation, from files of this host only."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from service.templating import templates


def router() -> APIRouter:
    """The pages."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        """Swagger UI."""
        return templates.TemplateResponse(request, "docs.html")

    @routes.get("/redoc")
    async def redoc(request: Request) -> Response:
        """Redoc."""
        return templates.TemplateResponse(request, "redoc.html")

    return routes
