"""``/``, ``/docs`` and ``/redoc``: the playground and the API documentation, all from this host."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from service.api import w10
from service.api.curve import CurveQuery
from service.web.templating import STATIC, templates

# Drawn for this page, each named after what it shows.
EXAMPLES = sorted(path.stem for path in (STATIC / "playground" / "examples").glob("*.png"))

# A swing that dies away, measured with some noise; to try the panel for points with.
POINTS = "\n".join(
    [
        "t,height",
        *(
            f"{t / 4},{h}"
            for t, h in enumerate(
                [
                    1.02,
                    0.83,
                    0.41,
                    -0.12,
                    -0.47,
                    -0.66,
                    -0.55,
                    -0.27,
                    0.05,
                    0.33,
                    0.42,
                    0.37,
                    0.19,
                    -0.06,
                    -0.2,
                    -0.3,
                    -0.23,
                    -0.12,
                    0.06,
                    0.14,
                    0.19,
                ]
            )
        ),
    ]
)


def router() -> APIRouter:
    """The pages."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/")
    async def playground(request: Request) -> Response:
        """The playground: every capability to try, through the public API."""
        curve = CurveQuery.model_fields["model"].default
        context = {"w10": w10.EXAMPLE, "examples": EXAMPLES, "curve": curve, "points": POINTS}
        return templates.TemplateResponse(request, "playground.html", context)

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        """Swagger UI."""
        return templates.TemplateResponse(request, "docs.html")

    @routes.get("/redoc")
    async def redoc(request: Request) -> Response:
        """Redoc."""
        return templates.TemplateResponse(request, "redoc.html")

    return routes
