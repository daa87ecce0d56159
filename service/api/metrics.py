"""``/metrics``: figures for Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.web.metrics import exposition
from service.web.openapi import contents


def router() -> APIRouter:
    """The endpoint."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics",
        summary="Get figures for Prometheus",
        response_class=Response,
        responses={200: contents("text/plain")},
    )
    def metrics() -> Response:
        """Requests, durations, queue and versions, added up over all workers."""
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes
