"""``/predict`` and ``/gradient``: a function of one variable, and its derivatives."""

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from contract.intervals import LEAST_LEVEL, MOST_LEVEL, REACH, quantile, within_reach
from contract.signatures import DERIVATIVES, DEVIATIONS, Curve
from service.runtime.dataplane import infer
from service.runtime.loader import Model
from service.runtime.queue import Queue
from service.runtime.session import Array
from service.settings import Settings
from service.web.body import parsing, read_json
from service.web.direct import direct
from service.web.errors import ErrorItem, NotFound, from_validation, invalid
from service.web.openapi import json_body, json_response, problems
from service.web.query import refuse_query
from service.web.state import services

Finite = Annotated[float, Field(allow_inf_nan=False)]

# From so many x on a request takes a place in the queue; fewer take a fraction of a millisecond.
PLACE_X = 2048
LEVEL = 0.95


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
        examples=["curve-mlp", "curve-poly", "curve-gp"],
    )
    uncertainty: bool = Field(
        default=False,
        description="Answer with standard errors and intervals as well: how sure the fit is of "
        "the curve itself, or of its derivative, at each x for itself. They aren't for new "
        "points, and outside the data they take the model for granted",
    )
    level: float = Field(
        default=LEVEL,
        ge=LEAST_LEVEL,
        le=MOST_LEVEL,
        description="The probability with which an interval should hold the truth. Only with "
        "uncertainty",
        examples=[0.95],
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
    standard_error: list[float | None] | None = Field(
        default=None,
        description="Where uncertainty was asked for: of f(x), or of the derivative; null where "
        f"x is further outside the data than {REACH:.0%} of their width: nobody knows there",
        examples=[[0.1]],
    )
    interval: list[list[float | None]] | None = Field(
        default=None,
        description="Where uncertainty was asked for: the lowest and the highest likely value; "
        "both null where standard_error is",
        examples=[[[1.05, 1.45]]],
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
        query, x, model, curve = await _read(request, CurveQuery)
        names = [curve.y, *_deviation(query, curve, 0)]
        y, *error = await _evaluate(services(request).queue, model, curve, x, *names)
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                "x": x,
                "y": y,
                "extrapolated": _extrapolated(x, curve),
                **_intervals(query, curve, x, y, error),
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
        query, x, model, curve = await _read(request, GradientQuery)
        name = curve.derivatives.get(query.order)
        if name is None:
            raise NotFound(f"That model was published without {DERIVATIVES[query.order]}")
        names = [curve.y, name, *_deviation(query, curve, query.order)]
        y, derivative, *error = await _evaluate(services(request).queue, model, curve, x, *names)
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                "order": query.order,
                "x": x,
                "y": y,
                "gradient": derivative,
                "extrapolated": _extrapolated(x, curve),
                **_intervals(query, curve, x, derivative, error),
            }
        )

    return routes


async def _read(
    request: Request, kind: type[Query]
) -> tuple[Query, NDArray[np.float64], Model, Curve]:
    shared = services(request)
    settings = shared.settings
    refuse_query(request)
    body = await read_json(request, settings.max_json_bytes, 2 * settings.max_x)
    async with parsing(request, body):
        try:
            query = kind.model_validate_json(body)
        except ValidationError as error:
            raise from_validation(error) from None
        x = np.array(query.x, dtype=np.float64, ndmin=1)
    if x.size > settings.max_x:
        detail = f"List should have at most {settings.max_x} items"
        raise invalid(ErrorItem(detail=detail, pointer="#/x"))
    # Generated clients send every default.
    if query.level != LEVEL and not query.uncertainty:
        detail = 'A level is that of an interval: ask for it with "uncertainty": true'
        raise invalid(ErrorItem(detail=detail, pointer="#/level"))
    return query, x, *shared.registry.curve(query.model)


async def _evaluate(
    queue: Queue, model: Model, curve: Curve, x: NDArray[np.float64], *names: str
) -> list[Array]:
    """The outputs ``names`` at each x. Raises Invalid where one exceeds a float64."""
    if x.size > PLACE_X:
        with queue.place():
            found = await infer(model, {curve.x: x}, names, queue)
    else:
        found = await infer(model, {curve.x: x}, names, queue)
    for result in found.values():
        # A sum of squares is quickly had, and finite only if every element is.
        if not isfinite(result @ result) and not (finite := np.isfinite(result)).all():
            where = int(np.argmin(finite))
            detail = "At this x the result is too large for a 64-bit float; move x towards the data"
            raise invalid(ErrorItem(detail=detail, pointer=f"#/x/{where}"))
    return [found[name] for name in names]


def _deviation(query: CurveQuery, curve: Curve, order: int) -> list[str]:
    """The output with the standard error of that derivative, if it was asked for.

    Raises Invalid for an order that none has, NotFound where this model hasn't."""
    if not query.uncertainty:
        return []
    if order not in DEVIATIONS:
        detail = f"There are no standard errors of order {order}; ask for order 1 or 2"
        raise invalid(ErrorItem(detail=detail, pointer="#/uncertainty"))
    name = curve.deviations.get(order)
    if name is None:
        raise NotFound(f"That model was published without {DEVIATIONS[order]}")
    return [name]


def _intervals(
    query: CurveQuery,
    curve: Curve,
    x: NDArray[np.float64],
    centre: Array,
    error: Sequence[Array],
) -> dict[str, Array]:
    """What an answer has besides where uncertainty was asked for: then there is one ``error``."""
    if not error:
        return {}
    known = np.where(within_reach(x, curve.domain), error[0], np.nan)  # NaN is written as null
    half = quantile(query.level, curve.degrees_of_freedom) * known
    return {
        "standard_error": known,
        "interval": np.stack([centre - half, centre + half], axis=1),
    }


def _extrapolated(x: NDArray[np.float64], curve: Curve) -> NDArray[np.bool_]:
    low, high = curve.domain
    return (x < low) | (x > high)
