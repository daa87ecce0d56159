"""Direct endpoints are called straight from the path; ordinary FastAPI endpoints stay FastAPI's."""

import asyncio
from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from service.runtime.resources import Resources
from service.web.direct import DirectRoutes, direct, direct_posts
from service.web.errors import NotFound, install


class Sum(BaseModel):
    a: int
    b: int


def client() -> TestClient:
    routes = APIRouter()

    @routes.post("/ordinary")
    async def ordinary(body: Sum) -> dict[str, int]:
        return {"sum": body.a + body.b}

    @routes.post("/marked")
    @direct
    async def marked(request: Request) -> Response:
        if await request.body() == b"lost":
            raise NotFound("It is lost")
        by_fastapi = "endpoint" in request.scope
        return JSONResponse({"by_fastapi": by_fastapi, "route": request.scope["route"].path})

    app = FastAPI()
    app.include_router(routes)
    install(app)
    return TestClient(DirectRoutes(app, direct_posts([routes])))


def test_an_ordinary_endpoint_is_left_to_fastapi() -> None:
    served = client()
    assert served.post("/ordinary", json={"a": 1, "b": 2}).json() == {"sum": 3}
    assert served.post("/ordinary", json={"a": 1}).status_code == 422


def test_a_marked_endpoint_skips_fastapi_and_keeps_its_errors() -> None:
    served = client()
    assert served.post("/marked").json() == {"by_fastapi": False, "route": "/marked"}
    lost = served.post("/marked", content=b"lost")
    assert (lost.status_code, lost.json()["detail"]) == (404, "It is lost")


def test_large_answers_are_counted_until_they_are_read() -> None:
    resources, seen = Resources(), []
    body = bytes(range(256)) * 10_000

    async def endpoint(_: Request) -> Response:
        return Response(body)

    async def send(message: Any) -> None:
        seen.append((message["type"], len(message.get("body", b"")), resources.memory.used))

    router = APIRouter()
    router.add_api_route("/large", direct(endpoint), methods=["POST"])
    app = DirectRoutes(Response(), direct_posts([router]))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/large",
        "headers": [],
        "state": {"services": SimpleNamespace(resources=resources)},
    }
    asyncio.run(app(dict(scope), None, send))
    assert [kind for kind, _, _ in seen].count("http.response.body") == 10
    assert sum(size for _, size, _ in seen) == len(body)
    assert {used for _, _, used in seen} == {len(body)}
    assert resources.memory.used == 0
    # No memory but the reserve, which isn't theirs: a refusal.
    resources.memory.take(resources.memory.most - len(body) + 1)
    seen.clear()
    asyncio.run(app(dict(scope), None, send))
    assert sum(size for _, size, _ in seen) < 1000
