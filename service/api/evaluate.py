"""``/evaluate``: any function of any model, by the names of its inputs and outputs."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api.calling import (
    Nested,
    Unreadable,
    add_dimensions,
    as_query,
    at,
    check_finite,
    compute,
    drop_dimensions,
    read_array,
)
from service.api.derivatives import VALUE
from service.runtime.loader import Model
from service.runtime.session import Array
from service.settings import Settings
from service.web.body import parsing, read_json
from service.web.direct import direct
from service.web.openapi import json_body, json_response, problems
from service.web.query import refuse_query
from service.web.state import services

EXAMPLE: dict[str, Any] = {
    "model": "curve-mlp",
    "inputs": {"x": [-0.5, 0.1, 3.0]},
    "outputs": ["y", "gradient"],
}


class EvaluateQuery(BaseModel):
    """What to compute from what."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    model: str = Field(
        max_length=64, description="Name of a model; /models lists them", examples=["curve-mlp"]
    )
    inputs: dict[str, Nested] = Field(
        min_length=1,
        max_length=64,
        description="Numbers for each input, rows first; a lone row may come without its brackets, "
        "and so may a lone tangent or cotangent of each row",
    )
    outputs: list[str] | None = Field(
        default=None,
        max_length=64,
        description="The outputs wanted, derivatives among them; those of the function itself, if "
        "none is named",
        examples=[["y", "gradient"]],
    )


class Evaluation(BaseModel):
    """The outputs that were asked for."""

    model: str = Field(description="The model that answered", examples=["curve-mlp"])
    version: int = Field(description="Its version", examples=[1])
    outputs: dict[str, Nested] = Field(description="Numbers by output, rows first")


def router(settings: Settings) -> APIRouter:
    """The endpoint."""
    routes = APIRouter(tags=["functions"])

    @routes.post(
        "/evaluate",
        summary="Evaluate any model, and its derivatives",
        responses={
            200: {"model": Evaluation},
            **problems(400, 404, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra=json_body(EvaluateQuery),
    )
    @direct
    async def evaluate(request: Request) -> Response:
        """The outputs asked for, from named inputs; /models/{model} lists both."""
        refuse_query(request)
        shared = services(request)
        body = await read_json(request, settings.max_json_bytes)
        async with parsing(request, body):
            query = await as_query(body, EvaluateQuery)
            model = shared.registry.get(query.model)
            given = {name: _read(name, data, model) for name, data in query.inputs.items()}
            query.inputs.clear()  # the arrays take a tenth of the memory
        known = model.signature
        wanted = query.outputs or _value(model)
        for index, name in enumerate(wanted):
            if name not in known.outputs:
                names = ", ".join(known.outputs)
                raise at("#/outputs", [index], f"there is no such output; there are: {names}")
        inputs, lone, single = add_dimensions(given, known.inputs)
        pointers = {name: f"#/inputs/{name}" for name in inputs}
        outputs = await compute(model, inputs, wanted, shared, pointers)
        check_finite(outputs)
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                "outputs": {
                    name: drop_dimensions(array, known.outputs[name], lone, single)
                    for name, array in outputs.items()
                },
            }
        )

    return routes


def _value(model: Model) -> list[str]:
    """The outputs of the function itself; none, which is all, of models without one."""
    function = model.manifest.functions.get(VALUE)
    return [tensor.name for tensor in function.outputs] if function else []


def _read(name: str, data: Any, model: Model) -> Array:
    tensor = model.signature.inputs.get(name)
    if tensor is None:
        names = ", ".join(model.signature.inputs)
        raise at("#/inputs", (), f"there is an input that is not known; there are: {names}")
    try:
        return read_array(data, model.dtypes[name])
    except Unreadable as error:
        raise at(f"#/inputs/{name}", error.where, error.detail) from None
