"""``/v2``: the Open Inference Protocol, as KServe, Triton and MLServer speak it.

https://github.com/kserve/open-inference-protocol. Every artifact is a model; the derivatives of a
curve, the saliency map of a classifier and the gradients of a loss are named outputs of it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.responses import Response

from contract.manifest import Tensor
from service.api.models import Name
from service.api.v2_messages import (
    DATATYPES,
    DTYPES,
    Inference,
    InferQuery,
    InputTensor,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    TensorMetadata,
)
from service.runtime.dataplane import infer
from service.runtime.errors import BadTensor
from service.runtime.loader import Model
from service.runtime.session import Array
from service.settings import Settings
from service.web.body import parsing, read_json
from service.web.errors import (
    BELOW,
    ErrorItem,
    Invalid,
    NotFound,
    Problem,
    from_problem,
    from_validation,
    problem_response,
)
from service.web.openapi import json_body, json_response, problems
from service.web.state import services


class V2Route(APIRoute):
    """Errors carry the member ``error`` as well, by which clients of the protocol know them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint with its errors answered."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except (Problem, *BELOW) as problem:
                return from_problem(problem, error=problem.detail)

        return answer


Version = Annotated[str, Path(max_length=20, description="The version in service")]


def router(settings: Settings, version: str) -> APIRouter:
    """The endpoints of the protocol."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], route_class=V2Route)

    @routes.get("", summary="Describe the server")
    async def server() -> ServerMetadata:
        """Its name and version."""
        return ServerMetadata(version=version)

    @routes.get("/health/live", summary="Is the server alive?")
    async def live() -> ServerLive:
        """200 as long as the process answers."""
        return ServerLive()

    @routes.get("/health/ready", summary="Is the server ready?", responses=problems(503))
    async def ready(request: Request) -> Response:
        """200 if every expected model serves, else 503; /health/ready says what is missing."""
        shared = services(request)
        if shared.lifecycle.draining or shared.registry.missing():
            return problem_response(503, "Not ready: /health/ready says why", error="not ready")
        return json_response({"ready": True})

    _add_model(routes, "/models/{model}", newest, settings)
    _add_model(routes, "/models/{model}/versions/{number}", numbered, settings)
    return routes


def newest(request: Request, model: Name) -> Model:
    """The version of a model that is in service."""
    return services(request).registry.get(model)


def numbered(request: Request, model: Name, number: Version) -> Model:
    """The same, if it is that version."""
    found = newest(request, model)
    if number != str(found.manifest.version):
        raise NotFound("That version is not in service; without one the newest good one answers")
    return found


def _add_model(
    routes: APIRouter, path: str, find: Callable[..., Model], settings: Settings
) -> None:
    """The endpoints of a model, or of a version of one, as ``find`` has it."""
    found_there = Depends(find)
    absent = problems(404, 422, 503)

    @routes.get(path, summary="Describe a model", responses=absent)
    async def metadata(found: Model = found_there) -> ModelMetadata:
        """Inputs and outputs of all its functions."""
        tensors = found.signature
        return ModelMetadata(
            name=found.manifest.model,
            versions=[str(found.manifest.version)],
            inputs=[_metadata(tensor) for tensor in tensors.inputs.values()],
            outputs=[_metadata(tensor) for tensor in tensors.outputs.values()],
        )

    @routes.get(f"{path}/ready", summary="Is a model ready?", responses=absent)
    async def ready(found: Model = found_there) -> ModelReady:
        """200 if it serves."""
        return ModelReady(name=found.manifest.model)

    @routes.post(
        f"{path}/infer",
        summary="Run a model",
        responses={200: {"model": Inference}, **problems(400, 404, 408, 413, 415, 422, 429, 503)},
        openapi_extra=json_body(InferQuery),
    )
    async def run(request: Request, found: Model = found_there) -> Response:
        """The outputs asked for, derivatives among them, from named tensors."""
        shared = services(request)
        body = await read_json(request, settings.max_json_bytes)
        async with parsing(request, body):
            try:
                query = InferQuery.model_validate_json(body)
            except ValidationError as error:
                raise from_validation(error) from None
            await asyncio.sleep(0)
            arrays = {tensor.name: _array(tensor, i) for i, tensor in enumerate(query.inputs)}
            for tensor in query.inputs:
                tensor.data = []  # its arrays take a tenth of the memory
        if len(arrays) < len(query.inputs):
            raise Invalid("An input is given twice; give each once")
        rows = max(len(array) for array in arrays.values())
        images = found.classifier is not None
        most = settings.max_images if images else settings.max_x
        if rows > most:
            raise Invalid(f"At most {most} rows can be asked for at once")
        wanted = [tensor.name for tensor in query.outputs]
        with shared.queue.place(rows if images else 1):
            try:
                outputs = await infer(found, arrays, wanted, shared.queue)
            except BadTensor as error:
                raise _problem(error, list(arrays)) from None
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise Invalid("A result is not a finite number: the inputs are too large")
        answer = {
            "model_name": found.manifest.model,
            "model_version": str(found.manifest.version),
            "outputs": [
                {
                    "name": name,
                    "datatype": DATATYPES[str(array.dtype)],
                    "shape": list(array.shape),
                    "data": array.ravel(),
                }
                for name, array in outputs.items()
            ],
        }
        return json_response(answer if query.id is None else answer | {"id": query.id})


def _metadata(tensor: Tensor) -> TensorMetadata:
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    datatype: Any = DATATYPES[tensor.dtype]
    return TensorMetadata(name=tensor.name, datatype=datatype, shape=shape)


def _array(tensor: InputTensor, index: int) -> Array:
    """The tensor's data as an array of its type and shape. Raises Invalid."""

    def refuse(detail: str) -> Invalid:
        return Invalid(
            "1 value is invalid", [ErrorItem(detail=detail, pointer=f"#/inputs/{index}")]
        )

    try:
        values = np.array(tensor.data, dtype=np.float64)
    except ValueError:
        raise refuse("The rows of data should be of equal length") from None
    if values.size != np.prod(tensor.shape, dtype=np.float64):
        raise refuse("data should have as many elements as shape says")
    dtype = DTYPES[tensor.datatype]
    if dtype.kind in "iu":
        # Beyond 2⁵³ a float64 has no room for every integer.
        low, high = max(np.iinfo(dtype).min, -(2**53)), min(np.iinfo(dtype).max, 2**53)
        if ((values < low) | (values > high) | (values != np.floor(values))).any():
            raise refuse(f"data should be integers from {low} to {high}")
    return values.reshape(tensor.shape).astype(dtype)


def _problem(error: BadTensor, names: list[str]) -> Invalid:
    index = f"/{names.index(error.tensor)}" if error.tensor in names else ""
    prefix = f"{error.tensor}: " if error.tensor and not index else ""
    item = ErrorItem(detail=prefix + error.detail, pointer=f"#/inputs{index}")
    return Invalid("1 value is invalid", [item])
