"""What one replica on Ray Serve runs: the application, its health, its metrics as Ray's.

Ray sends the deployment's class to replicas by value, and this module by name: what a replica keeps
is kept here.
"""

import time

from ray.util import metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app, make_registry
from service.runtime.registry import Registry
from service.settings import Settings
from service.web.request_record import RequestRecord

LABELS = ("handler", "method", "status", "model", "version")
SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

START_SECONDS = 60.0  # for the models to be verified and loaded

_registry: Registry | None = None
_started = False  # have all models been there once?


class NotReady(RuntimeError):
    """The replica doesn't have the models that are expected of it."""


class RayMetrics:
    """The service's request metrics as Ray's own, which Ray collects from every node.

    The names are those of ``service.web.metrics`` after Ray's prefix ``ray_``. The service's
    ``/metrics`` would show the one replica that happened to be asked, so don't scrape that as well.
    """

    def __init__(self) -> None:
        self.requests = metrics.Counter(
            "http_requests_total", description="Requests answered", tag_keys=LABELS
        )
        self.seconds = metrics.Histogram(
            "http_request_duration_seconds",
            description="Time from a request's head to the end of its answer",
            boundaries=SECONDS,
            tag_keys=("handler", "method"),
        )

    def observe(
        self, scope: Scope, status: int, seconds: float, request_record: RequestRecord
    ) -> None:
        """Note an answer."""
        handler = getattr(scope.get("route"), "path", scope["path"] if status < 400 else "other")
        method = scope["method"]
        version = str(request_record.version) if request_record.version else ""
        tags = (handler, method, str(status), request_record.model, version)
        self.requests.inc(tags=dict(zip(LABELS, tags, strict=True)))
        self.seconds.observe(seconds, tags={"handler": handler, "method": method})


class WithoutRequestId:
    """Leaves x-request-id to Ray's proxy, which sets it on every answer, from the same header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(n, v) for n, v in message["headers"] if n != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_without)


def build() -> ASGIApp:
    """The application of one replica, with the settings of that replica's environment."""
    global _registry  # noqa: PLW0603
    settings = Settings()
    _registry = make_registry(settings)
    app = create_app(settings, registry=_registry, observe=RayMetrics().observe)
    return WithoutRequestId(app)


def check_health() -> None:
    """Raise NotReady unless every expected model is loaded.

    The first time it waits for them: Ray asks as soon as the replica has started, when its models
    are still being verified, and would replace it, again and again.
    """
    global _started  # noqa: PLW0603
    if _registry is None:
        raise NotReady("the application has not been built yet")
    deadline = time.monotonic() + (0 if _started else START_SECONDS)
    while not _registry.scanned or _registry.missing():
        if time.monotonic() >= deadline:
            missing = "; ".join(f"{m.model}: {m.reason}" for m in _registry.missing())
            raise NotReady(missing or "the artifacts have not been looked at yet")
        time.sleep(0.1)
    _started = True
