"""``/health/live`` and ``/health/ready``: liveness and readiness probes."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from service.web.access import AUTHORIZED
from service.web.errors import ErrorItem, problem_response
from service.web.openapi import problems
from service.web.state import services


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = Field(default="live", description="Always the same")


class Ready(BaseModel):
    """Every expected model serves."""

    status: Literal["ready"] = Field(default="ready", description="Always the same")
    models: dict[str, int] = Field(
        description="Version in service of each model", examples=[{"curve-mlp": 1}]
    )


def router() -> APIRouter:
    """The health endpoints."""
    routes = APIRouter(prefix="/health", tags=["health"])

    @routes.get("/live", summary="Is the process alive?")
    async def live() -> Live:
        """200 as long as the process answers at all, ready or not."""
        return Live()

    @routes.get(
        "/ready",
        summary="Can requests be sent here?",
        response_model=Ready,
        responses=problems(503),
    )
    async def ready(request: Request) -> Ready | Response:
        """200 if every expected model serves; 503 with what is missing and what makes it.

        At the start it is 503 until every worker has its models: any may get the next request.
        Where keys are asked for, a request without one learns which models are missing, not why:
        the reasons hold paths and commands.
        """
        shared = services(request)
        if shared.lifecycle.draining:
            return problem_response(503, "Shutting down: send requests elsewhere")
        registry = shared.registry
        missing = registry.missing()
        if missing:
            if request.scope.get(AUTHORIZED, True):
                details = [f"{m.model}: {m.reason}" if m.model else m.reason for m in missing]
            else:
                details = [m.model for m in missing if m.model]
            items = [ErrorItem(detail=detail) for detail in details]
            return problem_response(503, "Not ready: see the errors for what is missing", items)
        if not shared.lifecycle.board.others_loaded(shared.lifecycle.worker):
            return problem_response(503, "Not ready: another worker is still loading its models")
        return Ready(models={n: m.manifest.version for n, m in registry.models.items()})

    return routes
