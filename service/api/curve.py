"""``/predict`` and ``/gradient``: a function of one variable, and its derivatives."""

from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from contract.manifest import CurveManifest
from service.runtime.loader import Model
from service.runtime.queue import Queue
from service.settings import Settings
from service.web.body import parsing, read_json
from service.web.direct import direct
from service.web.errors import ErrorItem, Invalid, from_validation
from service.web.openapi import json_body, json_response, problems
from service.web.state import services

Finite = Annotated[float, Field(allow_inf_nan=False)]

# One run of the graph takes this many x: intermediate results of a network then stay in cache,
# and memory stays bounded. Where it takes more than one, others get their turn in between.
CHUNK = 2048

VALUE, Y = "value", "y"  # a function, and its output
GRADIENTS = {1: "gradient", 2: "gradient2", 3: "gradient3"}


class CurveQuery(BaseModel):
    """Where to evaluate which curve."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"x": [-0.5, 0.1, 3.0], "model": "curve-mlp"}]},
    )

    x: Annotated[
        Annotated[list[Finite], Field(min_length=1, fail_fast=True)] | Finite,
        Field(
            union_mode="left_to_right",
            description="One x or a list of them, in the unit of the training data's x",
            examples=[3.0, [-0.5, 0.1, 3.0]],
        ),
    ]
    model: str = Field(
        default="curve-mlp",
        max_length=64,
        description="Name of a curve model; /models lists them",
        examples=["curve-mlp", "curve-poly"],
    )


class GradientQuery(CurveQuery):
    """Where to differentiate which curve."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"x": [-0.5, 0.1, 3.0], "model": "curve-mlp", "order": 1}]}
    )

    # Not a Literal, which takes true for 1.
    order: int = Field(
        default=1,
        ge=1,
        le=3,
        description="Order of the derivative: 1 is dy/dx, 2 is d²y/dx²",
        examples=[1],
    )


Query = TypeVar("Query", bound=CurveQuery)


class Prediction(BaseModel):
    """f(x), element by element: all lists are of equal length."""

    model: str = Field(description="The model that answered", examples=["curve-mlp"])
    version: int = Field(description="Its version", examples=[1])
    x: list[float] = Field(description="The x asked for", examples=[[3.0]])
    y: list[float] = Field(
        description="f(x), in the unit of the training data's y", examples=[[1.25]]
    )
    extrapolated: list[bool] = Field(
        description="True where x lies outside the training data, and f is a guess",
        examples=[[False]],
    )


class Gradient(Prediction):
    """f(x) and its derivative, element by element."""

    order: int = Field(description="Order of the derivative", examples=[1])
    gradient: list[float] = Field(
        description="The derivative: unit of y over unit of x to the power of the order",
        examples=[[-0.5]],
    )


def router(settings: Settings) -> APIRouter:
    """The curve endpoints."""
    routes = APIRouter(tags=["curves"])
    errors = problems(400, 404, 408, 413, 415, 422, 429, 503)

    @routes.post(
        "/predict",
        summary="Evaluate a curve: y = f(x)",
        responses={200: {"model": Prediction}, **errors},
        openapi_extra=json_body(CurveQuery, x=settings.max_x),
    )
    @direct
    async def predict(request: Request) -> Response:
        """The value of the fitted curve at each x."""
        _, x, model, manifest = await _read(request, CurveQuery)
        found = await _evaluate(services(request).queue, model, x, VALUE)
        return json_response(
            {
                "model": manifest.model,
                "version": manifest.version,
                "x": x,
                "y": found[Y],
                "extrapolated": _extrapolated(x, manifest),
            }
        )

    @routes.post(
        "/gradient",
        summary="Differentiate a curve: f′(x), f″(x) or f‴(x)",
        responses={200: {"model": Gradient}, **errors},
        openapi_extra=json_body(GradientQuery, x=settings.max_x),
    )
    @direct
    async def gradient(request: Request) -> Response:
        """The exact derivative at each x, from a graph traced from PyTorch's autograd."""
        query, x, model, manifest = await _read(request, GradientQuery)
        name = GRADIENTS[query.order]
        found = await _evaluate(services(request).queue, model, x, name)
        return json_response(
            {
                "model": manifest.model,
                "version": manifest.version,
                "order": query.order,
                "x": x,
                "y": found[Y],
                "gradient": found[name],
                "extrapolated": _extrapolated(x, manifest),
            }
        )

    return routes


async def _read(
    request: Request, kind: type[Query]
) -> tuple[Query, NDArray[np.float64], Model, CurveManifest]:
    shared = services(request)
    settings = shared.settings
    body = await read_json(request, settings.max_json_bytes, 2 * settings.max_x)
    async with parsing(request, body):
        try:
            query = kind.model_validate_json(body)
        except ValidationError as error:
            raise from_validation(error) from None
        x = np.atleast_1d(np.array(query.x, dtype=np.float64))
    if x.size > settings.max_x:
        detail = f"List should have at most {settings.max_x} items"
        raise Invalid("1 value is invalid", [ErrorItem(detail=detail, pointer="#/x")])
    return query, x, *shared.registry.curve(query.model)


async def _evaluate(
    queue: Queue, model: Model, x: NDArray[np.float64], function: str
) -> dict[str, NDArray[np.float64]]:
    """The outputs of ``function`` at each x, and y. Raises Invalid where one exceeds a float64.

    Few x take some 20 µs, too little to queue for."""
    if x.size <= CHUNK:
        found = _run(model, x, function)
    else:
        with queue.place():
            chunks = [x[start : start + CHUNK] for start in range(0, x.size, CHUNK)]
            parts = [await queue.do(_run, model, chunk, function) for chunk in chunks]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for result in found.values():
        finite = np.isfinite(result)
        if not finite.all():
            where = int(np.argmin(finite))
            detail = "At this x the result is too large for a 64-bit float; move x towards the data"
            raise Invalid("1 value is invalid", [ErrorItem(detail=detail, pointer=f"#/x/{where}")])
    return found


def _run(model: Model, x: NDArray[np.float64], function: str) -> dict[str, Any]:
    found = model.run(function, x)
    return found if Y in found else found | model.run(VALUE, x)


def _extrapolated(x: NDArray[np.float64], manifest: CurveManifest) -> NDArray[np.bool_]:
    low, high = manifest.domain
    return (x < low) | (x > high)
