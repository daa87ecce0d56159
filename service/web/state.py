"""Shared state: made by the lifespan, available to every request under any ASGI server."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.lifecycle import Lifecycle
from service.runtime.queue import Queue
from service.runtime.registry import Registry
from service.runtime.resources import Resources
from service.settings import Settings
from service.web.errors import NotReady


@dataclass
class Services:
    """The parts of a running service that requests share."""

    settings: Settings
    registry: Registry
    queue: Queue
    lifecycle: Lifecycle
    resources: Resources


def services(request: Request) -> Services:
    """The shared parts, for an endpoint."""
    return services_of(request.scope)


def services_of(scope: Scope) -> Services:
    """The shared parts, for a middleware. Raises NotReady if the lifespan has not run."""
    found: Services | None = scope.get("state", {}).get("services")
    if found is None:
        raise NotReady(
            "The service has not been started: its server must run the lifespan of the application"
        )
    return found


class KeepState:
    """Keeps what the lifespan of ``app`` made, and gives it to requests that come without it.

    Servers should pass the lifespan's state to each request. Ray Serve doesn't, nor do servers that
    are older than that part of ASGI.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state: dict[str, object] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan, or handle one request."""
        if scope["type"] == "lifespan":
            self.state = scope.setdefault("state", {})
        elif "services" not in scope.get("state", ()):
            scope["state"] = {**scope.get("state", {}), **self.state}
        await self.app(scope, receive, send)
