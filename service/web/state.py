"""What the lifespan hands to every request."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

from service.lifecycle import Lifecycle
from service.runtime.queue import Queue
from service.runtime.registry import Registry
from service.runtime.room import Room
from service.settings import Settings


@dataclass
class Services:
    """The parts of a running service that requests share."""

    settings: Settings
    registry: Registry
    queue: Queue
    lifecycle: Lifecycle
    room: Room


def services(request: Request) -> Services:
    """The shared parts, for an endpoint."""
    return services_of(request.scope)


def services_of(scope: Scope) -> Services:
    """The shared parts, for a middleware."""
    found: Services = scope["state"]["services"]
    return found
