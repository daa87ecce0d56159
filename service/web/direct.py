"""Fast path to endpoints that read their own body and serialise their own answer.

FastAPI's routing, dependency solving and telemetry take about 0.2 ms a request, more than a small
model does. These endpoints need none of it: they take the request and return the response, and are
looked up directly by path. The router still documents them, and serves them where the path does not
match exactly (under a root path, for example).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.web.errors import BELOW, ClientGone, Problem, crash_response, from_problem
from service.web.state import services_of

Endpoint = Callable[[Request], Awaitable[Response]]
# Larger answers are sent in pieces.
LARGE_BYTES = 256 * 1024
PIECE_BYTES = 256 * 1024
_marked: set[Endpoint] = set()


def direct(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that reads its own body and returns its own response."""
    _marked.add(endpoint)
    return endpoint


def direct_posts(routers: Iterable[APIRouter]) -> dict[str, APIRoute]:
    """The marked POST endpoints of ``routers`` by path."""
    return {
        route.path: route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        and "POST" in (route.methods or ())
        and route.endpoint in _marked
    }


def paths(routers: Iterable[APIRouter]) -> set[str]:
    """The path of every endpoint of ``routers``, with its placeholders."""
    return {
        route.path for router in routers for route in router.routes if isinstance(route, APIRoute)
    }


class LargeAnswer(Response):
    """A large answer, sent piece by piece with backpressure; its memory is counted until sent.

    Written whole, it would wait in the connection's write buffer, and nothing limits the sum of
    those buffers. Raises QueueFull if the memory isn't available.
    """

    def __init__(self, answer: Response, scope: Scope) -> None:
        self.answer = answer
        # Clients that don't read hold it for long: the reserve stays for small work meanwhile.
        memory = services_of(scope).resources.memory
        memory.for_request().take(len(answer.body), large=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it in pieces, each once most of the one before has been sent."""
        answer, body = self.answer, memoryview(self.answer.body)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": answer.raw_headers,
            }
        )
        for start in range(0, len(body), PIECE_BYTES):
            end = start + PIECE_BYTES
            piece = bytes(body[start:end])
            await send({"type": "http.response.body", "body": piece, "more_body": end < len(body)})


class DirectRoutes:
    """Calls an endpoint by its exact path, and leaves everything else to ``app``.

    A path may have placeholders: ``/v2/models/{model}/infer``.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, APIRoute]) -> None:
        self.app = app
        self.routes = {path: route for path, route in endpoints.items() if "{" not in path}
        # Keyed by the number of path segments and the last one, which is never a placeholder.
        self.patterns: dict[tuple[int, str], list[tuple[list[str], APIRoute]]] = {}
        for path, route in endpoints.items():
            if "{" in path:
                parts = path.split("/")
                self.patterns.setdefault((len(parts), parts[-1]), []).append((parts, route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self.routes.get(scope["path"]) or self._matching(scope)
            if route is not None:
                scope["route"] = route  # for the log, metrics and traces, as routing does
                try:
                    response = await route.endpoint(Request(scope, receive))
                    if len(response.body) > LARGE_BYTES:
                        response = LargeAnswer(response, scope)
                except (Problem, *BELOW) as problem:
                    response = from_problem(problem)
                except ClientGone:
                    raise
                except Exception as error:  # as FastAPI's own stack does for the others
                    response = crash_response(scope, error)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _matching(self, scope: Scope) -> APIRoute | None:
        """The route whose placeholders fit; they go into the scope, as routing puts them."""
        parts = scope["path"].split("/")
        for pattern, route in self.patterns.get((len(parts), parts[-1]), ()):
            values = {}
            for part, expected in zip(parts, pattern, strict=True):
                if expected.startswith("{"):
                    if not part:
                        break
                    values[expected[1:-1]] = part
                elif part != expected:
                    break
            else:
                scope["path_params"] = values
                return route
        return None
