"""``/umbridge``: UM-Bridge 1.0, which PyMC, QMCPy, MUQ and other tools of statisticians speak.

https://um-bridge-benchmarks.readthedocs.io/en/docs/umbridge/protocol.html. An input or output of a
model is a vector here: a row of it, flattened. The member ``config`` may give sizes that the caller
chooses: ``{"n": 100}`` makes an input 100 rows long, and so evaluates 100 of them at once.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from contract.manifest import Tensor, shape_text
from contract.signatures import ROWS
from service.api.calling import (
    Nested,
    Unreadable,
    at,
    not_finite,
    read_array,
    read_query,
    row_numbers,
)
from service.api.derivatives import Call, Derivatives, Unsupported, derivatives
from service.runtime.errors import NoSuchModel
from service.runtime.loader import Model
from service.runtime.registry import Registry
from service.runtime.session import Array
from service.settings import Settings
from service.web.direct import direct
from service.web.errors import Invalid, NotFound
from service.web.openapi import json_body, json_response, problems
from service.web.protocol_errors import Document, in_words
from service.web.state import Services, services

PREFIX = "/umbridge"
# What each kind of problem is to the protocol's clients, which know only 400.
UNSUPPORTED, BAD_OUTPUT = "UnsupportedFeature", "InvalidOutput"
MARK = "umbridge:"  # before the type, in the one text that a problem has


class Question(BaseModel):
    """A question about a model."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=64, description="The model", examples=["curve-mlp"])
    config: dict[str, Any] | None = Field(  # C++ clients write an empty one as null
        default=None, description="Sizes that the caller chooses, such as the rows n", examples=[{}]
    )


class EvaluateRequest(Question):
    """Where to evaluate a model."""

    input: list[Nested] = Field(
        max_length=64, description="A vector for each input", examples=[[[3.0]]]
    )


Index = Annotated[int, Field(ge=0, lt=64)]


class GradientRequest(EvaluateRequest):
    """A vector times the Jacobian."""

    out_wrt: Index = Field(alias="outWrt", description="Which output", examples=[0])
    in_wrt: Index = Field(alias="inWrt", description="Which input", examples=[0])
    sens: Nested = Field(description="A vector as long as the output", examples=[[1.0]])


class ApplyJacobianRequest(EvaluateRequest):
    """The Jacobian times a vector."""

    out_wrt: Index = Field(alias="outWrt", description="Which output", examples=[0])
    in_wrt: Index = Field(alias="inWrt", description="Which input", examples=[0])
    vec: Nested = Field(description="A vector as long as the input", examples=[[1.0]])


class ApplyHessianRequest(EvaluateRequest):
    """A vector times the second derivatives times another."""

    out_wrt: Index = Field(alias="outWrt", description="Which output", examples=[0])
    in_wrt1: Index = Field(alias="inWrt1", description="The input of the answer", examples=[0])
    in_wrt2: Index = Field(alias="inWrt2", description="The input of vec", examples=[0])
    sens: Nested = Field(description="A vector as long as the output", examples=[[1.0]])
    vec: Nested = Field(description="A vector as long as the input inWrt2", examples=[[1.0]])


class Info(BaseModel):
    """The protocol, and the models that can be asked."""

    protocolVersion: float = Field(default=1.0, description="Always the same")  # noqa: N815
    models: list[str] = Field(description="Models with a value", examples=[["curve-mlp"]])


class Support(BaseModel):
    """What can be asked of a model."""

    Evaluate: bool
    Gradient: bool
    ApplyJacobian: bool
    ApplyHessian: bool


class ModelInfo(BaseModel):
    """What can be asked of a model."""

    support: Support


class InputSizes(BaseModel):
    """The lengths of the inputs."""

    inputSizes: list[int] = Field(description="One for each input", examples=[[1]])  # noqa: N815


class OutputSizes(BaseModel):
    """The lengths of the outputs."""

    outputSizes: list[int] = Field(description="One for each output", examples=[[1]])  # noqa: N815


class Vectors(BaseModel):
    """A vector for each output."""

    output: list[list[float]] = Field(examples=[[[1.25]]])


class Vector(BaseModel):
    """One vector."""

    output: list[float] = Field(examples=[[-0.5]])


def error(status: int, document: Document) -> tuple[int, Document]:
    """A problem as the protocol's clients read it: 400, with a type of theirs."""
    text = in_words(document)
    kind = {404: "ModelNotFound", 503: "ModelNotFound"}.get(status, "InvalidInput")
    if text.startswith(MARK):
        _, kind, text = text.split(":", 2)
        document = {**document, "detail": text}
    if status in {404, 415, 422, 503}:
        status = 400
        document = {**document, "status": 400, "title": "Bad Request"}
    return status, {**document, "error": {"type": kind, "message": text}}


Decorator = Callable[[Callable[[Request], Awaitable[Response]]], Any]


def router(settings: Settings) -> APIRouter:
    """The endpoints of the protocol."""
    routes = APIRouter(prefix=PREFIX, tags=["UM-Bridge"])
    errors = problems(400, 408, 413, 429)

    @routes.get("", include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    @routes.get("/Info", summary="List the models")
    async def info(request: Request) -> Info:
        """Every model that has a value."""
        return Info(models=_names(services(request).registry))

    def post(path: str, kind: type[Question], answer: type[BaseModel], summary: str) -> Decorator:
        return routes.post(
            path,
            summary=summary,
            responses={200: {"model": answer}, **errors},
            openapi_extra=json_body(kind),
        )

    @post("/ModelInfo", Question, ModelInfo, "Say what can be asked of a model")
    @direct
    async def model_info(request: Request) -> Response:
        """Which derivatives the model was published with."""
        question = await read_query(request, Question, settings)
        known = derivatives(_model(services(request).registry, question.name))
        support = Support(
            Evaluate=True,
            Gradient=known.has_vjp,
            ApplyJacobian=known.has_jvp,
            ApplyHessian=known.has_hvp,
        )
        return json_response({"support": support.model_dump()})

    @post("/InputSizes", Question, InputSizes, "Say how long the inputs are")
    @direct
    async def input_sizes(request: Request) -> Response:
        """The length of each input."""
        question = await read_query(request, Question, settings)
        known = derivatives(_model(services(request).registry, question.name))
        sizes = _sizes(known, question.config)
        return json_response({"inputSizes": _lengths(known.inputs.values(), sizes)})

    @post("/OutputSizes", Question, OutputSizes, "Say how long the outputs are")
    @direct
    async def output_sizes(request: Request) -> Response:
        """The length of each output."""
        question = await read_query(request, Question, settings)
        known = derivatives(_model(services(request).registry, question.name))
        sizes = _sizes(known, question.config)
        return json_response({"outputSizes": _lengths(known.outputs.values(), sizes)})

    @post("/Evaluate", EvaluateRequest, Vectors, "Evaluate a model")
    @direct
    async def evaluate(request: Request) -> Response:
        """Every output, as a vector."""
        asked = await _ask(request, EvaluateRequest, settings)
        found = await asked.call.value()
        return asked.answer(found, [found[name].ravel() for name in asked.known.outputs])

    @post("/Gradient", GradientRequest, Vector, "Multiply a vector with the Jacobian")
    @direct
    async def gradient(request: Request) -> Response:
        """sens · J: the gradient of the scalar product of sens with the output."""
        asked = await _ask(request, GradientRequest, settings)
        y, x = asked.pair()
        cotangent = asked.vector("sens", asked.query.sens, asked.known.outputs[y])
        found = await asked.derive(asked.call.vjp({y: cotangent}, [x]))
        return asked.answer(found, found[x].ravel())

    @post("/ApplyJacobian", ApplyJacobianRequest, Vector, "Multiply the Jacobian with a vector")
    @direct
    async def apply_jacobian(request: Request) -> Response:
        """J · vec: the derivative of the output along vec."""
        asked = await _ask(request, ApplyJacobianRequest, settings)
        y, x = asked.pair()
        tangent = asked.vector("vec", asked.query.vec, asked.known.inputs[x])
        found = await asked.derive(asked.call.jvp({x: tangent}, [y]))
        return asked.answer(found, found[y].ravel())

    @post("/ApplyHessian", ApplyHessianRequest, Vector, "Multiply the Hessian with vectors")
    @direct
    async def apply_hessian(request: Request) -> Response:
        """The derivative by the input inWrt1 of sens · J · vec."""
        asked = await _ask(request, ApplyHessianRequest, settings)
        query = asked.query
        y = asked.output("outWrt", query.out_wrt)
        x, z = asked.input("inWrt1", query.in_wrt1), asked.input("inWrt2", query.in_wrt2)
        cotangent = asked.vector("sens", query.sens, asked.known.outputs[y])
        tangent = asked.vector("vec", query.vec, asked.known.inputs[z])
        found = await asked.derive(asked.call.hvp(y, cotangent, {z: tangent}, x))
        return asked.answer({y: found}, found.ravel())

    return routes


class _ParsedRequest:
    """A request for numbers, read: the model, its inputs, and how the answer is written."""

    def __init__(self, query: Any, model: Model, shared: Services) -> None:
        self.query = query
        self.model = model
        self.known = derivatives(model)
        self.named = _sizes(self.known, query.config)
        inputs = list(self.known.inputs.values())
        if len(query.input) != len(inputs):
            raise at("#/input", (), f"there should be {len(inputs)} vectors, one for each input")
        arrays = {
            tensor.name: self.vector(f"input/{index}", data, tensor)
            for index, (tensor, data) in enumerate(zip(inputs, query.input, strict=True))
        }
        query.input.clear()  # the arrays take a tenth of the memory
        pointers = {tensor.name: f"#/input/{index}" for index, tensor in enumerate(inputs)}
        self.call = Call(model, arrays, shared, pointers)

    def vector(self, place: str, data: Any, tensor: Tensor) -> Array:
        """A vector in the tensor's shape. Raises Invalid."""
        named = self.named
        shape = [named[size] if isinstance(size, str) else size for size in tensor.shape]
        length = prod(shape)
        try:
            found = read_array(data, np.dtype(tensor.dtype))
        except Unreadable as error:
            raise at(f"#/{place}", error.where, error.detail) from None
        if found.shape != (length,):
            detail = (
                f"it should be a list of {length} numbers, not of shape {shape_text(found.shape)}"
            )
            raise at(f"#/{place}", (), detail)
        return found.reshape(shape)

    def pair(self) -> tuple[str, str]:
        """The output and the input that outWrt and inWrt name. Raises Invalid."""
        query = self.query
        return self.output("outWrt", query.out_wrt), self.input("inWrt", query.in_wrt)

    def output(self, member: str, index: int) -> str:
        """The name of an output that can be differentiated. Raises Invalid."""
        found = self.known.differentiable_outputs
        return self._name(member, index, list(self.known.outputs), found)

    def input(self, member: str, index: int) -> str:
        """The name of an input that can be differentiated by. Raises Invalid."""
        found = self.known.differentiable_inputs
        return self._name(member, index, list(self.known.inputs), found)

    def _name(self, member: str, index: int, names: list[str], good: list[str]) -> str:
        if index >= len(names):
            raise at(f"#/{member}", (), f"it should be from 0 to {len(names) - 1}")
        if names[index] not in good:
            raise at(f"#/{member}", (), f"{names[index]} has no derivatives: it is no float")
        return names[index]

    async def derive(self, work: Any) -> Any:
        """What ``work`` gives. Raises Invalid where the model lacks the functions for it."""
        try:
            return await work
        except Unsupported as error:
            raise Invalid(f"{MARK}{UNSUPPORTED}:{error}") from None

    def answer(self, found: Mapping[str, Array], output: Any) -> Response:
        """The answer; its headers say which version of which model gave it."""
        place = not_finite(found)
        if place:
            raise Invalid(f"{MARK}{BAD_OUTPUT}:{place} is not a finite number")
        manifest = self.model.manifest
        headers = {"x-model-name": manifest.model, "x-model-version": str(manifest.version)}
        return json_response({"output": output}, headers)


async def _ask(request: Request, kind: type[Question], settings: Settings) -> _ParsedRequest:
    shared = services(request)
    query = await read_query(request, kind, settings)
    return _ParsedRequest(query, _model(shared.registry, query.name), shared)


def _names(registry: Registry) -> list[str]:
    return sorted(name for name, model in registry.models.items() if _has_value(model))


def _has_value(model: Model) -> bool:
    try:
        derivatives(model)
    except NoSuchModel:
        return False
    return True


def _model(registry: Registry, name: str) -> Model:
    model = registry.models.get(name)
    if model is None or not _has_value(model):
        raise NotFound(f"There is no such model here; there are: {', '.join(_names(registry))}")
    return model


def _sizes(known: Derivatives, config: Mapping[str, Any] | None) -> dict[str, int]:
    """The sizes that the caller chooses: 1 row, if ``config`` has no other. Raises Invalid."""
    found = {}
    for name in known.named_sizes:
        size = (config or {}).get(name, 1 if name == ROWS else None)
        if isinstance(size, float) and size.is_integer():
            size = int(size)
        if type(size) is not int or not 1 <= size <= 10_000_000:
            raise at("#/config", (), f"{name} should be a whole number over 0: a size")
        found[name] = size
    return found


def _lengths(tensors: Sequence[Tensor] | Any, sizes: Mapping[str, int]) -> list[int]:
    return [row_numbers(tensor, sizes) for tensor in tensors]
