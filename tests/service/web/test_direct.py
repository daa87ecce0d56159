"""Direct endpoints are called straight from the path; ordinary FastAPI endpoints stay FastAPI's."""

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

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
        return JSONResponse({"routed": "route" in request.scope})

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
    assert served.post("/marked").json() == {"routed": False}
    lost = served.post("/marked", content=b"lost")
    assert (lost.status_code, lost.json()["detail"]) == (404, "It is lost")
