"""``/tesseract/<model>``: Tesseract's protocol, by which JAX differentiates through a served model.

https://docs.pasteurlabs.ai/projects/tesseract-core

Arrays have the model's own shapes, rows first; those of a lone row may come without that dimension,
as ``jax.vmap`` wants it. The Jacobian has the shape [*y.shape, *x.shape]: with several rows it is
block-diagonal.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from contract.manifest import Tensor, shape_text
from contract.signatures import ROWS
from service.api.calling import (
    Unreadable,
    add_dimensions,
    at,
    check_finite,
    drop_dimensions,
    read_array,
    read_query,
    row_numbers,
)
from service.api.derivatives import Call, Derivatives, Unsupported, derivatives
from service.api.models import Name
from service.runtime.loader import Model
from service.runtime.session import Array
from service.settings import Settings
from service.web.direct import direct
from service.web.errors import NotFound, ProblemDetails
from service.web.openapi import as_json, json_body, path_parameters, problems
from service.web.protocol_errors import Document, in_words
from service.web.request_record import Stage
from service.web.state import services

PREFIX = "/tesseract"
BASE64 = "json+base64"
FORMATS = ["json", BASE64]
INTEGERS = ("int64", "int32", "int16", "int8", "uint32", "uint16", "uint8")
DTYPES = ("float64", "float32", *INTEGERS)


class Buffer(BaseModel):
    """The elements of an array."""

    model_config = ConfigDict(strict=True)

    buffer: Any = Field(
        description="Bytes in base64, or nested lists of numbers",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
        examples=[[[1.0, 2.0, 3.0]]],
    )
    encoding: Literal["base64", "json", "raw"] = Field(
        description="What buffer is; raw is the same as json", examples=["json"]
    )


class EncodedArray(BaseModel):
    """An array as Tesseract writes it."""

    model_config = ConfigDict(strict=True)

    object_type: Literal["array"] = Field(default="array", description="Always the same")
    shape: list[Annotated[int, Field(ge=0, le=100_000_000)]] = Field(
        max_length=16, description="Its sizes", examples=[[1, 3]]
    )
    dtype: str = Field(max_length=16, description="Type of its elements", examples=["float64"])
    data: Buffer


Arrays = Annotated[
    dict[str, EncodedArray], Field(max_length=64, description="Arrays by input or output")
]
Names = Annotated[
    list[str],
    Field(min_length=1, max_length=64, description="Names of inputs or outputs"),
]


def _config(**members: Any) -> ConfigDict:
    """Of a body, with an example for documentation: a curve at x = 3, with ``members`` besides."""
    example = {"inputs": {"x": _array(3.0)}, **members}
    return ConfigDict(strict=True, json_schema_extra={"examples": [example]})


def _array(value: float) -> dict[str, Any]:
    return {"shape": [1], "dtype": "float64", "data": {"buffer": [value], "encoding": "json"}}


class ApplyBody(BaseModel):
    """Where to evaluate the model."""

    model_config = _config()

    inputs: Arrays


class JacobianBody(ApplyBody):
    """Whose Jacobian is wanted, by what."""

    model_config = _config(jac_inputs=["x"], jac_outputs=["y"])

    jac_inputs: Names
    jac_outputs: Names


class JvpBody(ApplyBody):
    """The Jacobian times tangents."""

    model_config = _config(jvp_inputs=["x"], jvp_outputs=["y"], tangent_vector={"x": _array(1.0)})

    jvp_inputs: Names
    jvp_outputs: Names
    tangent_vector: Arrays


class VjpBody(ApplyBody):
    """Cotangents times the Jacobian."""

    model_config = _config(vjp_inputs=["x"], vjp_outputs=["y"], cotangent_vector={"y": _array(1.0)})

    vjp_inputs: Names
    vjp_outputs: Names
    cotangent_vector: Arrays


class ShapeAndType(BaseModel):
    """An array without its elements."""

    model_config = ConfigDict(strict=True)

    shape: list[Annotated[int, Field(ge=0, le=100_000_000)]] = Field(
        max_length=16, description="Its sizes", examples=[[1, 3]]
    )
    dtype: str = Field(max_length=16, description="Type of its elements", examples=["float64"])


class AbstractBody(BaseModel):
    """The shapes of the inputs."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"inputs": {"x": {"shape": [1], "dtype": "float64"}}}]},
    )

    inputs: dict[str, ShapeAndType] = Field(max_length=64, description="Shapes and types by input")


class TesseractHealth(BaseModel):
    """The model serves."""

    status: Literal["ok"] = Field(default="ok", description="Always the same")


class Invalidity(BaseModel):
    """One thing that was wrong, and where, as FastAPI writes it."""

    type: Literal["value_error"] = Field(description="Always the same")
    loc: list[str] = Field(description="Where: body or path, and the way from there")
    msg: str = Field(description="What was wrong")


class TesseractProblem(ProblemDetails):
    """A 422 as Tesseract's clients read it."""

    detail: list[Invalidity] = Field(  # type: ignore[assignment]
        description="What was wrong, one by one",
        examples=[[{"type": "value_error", "loc": ["body", "inputs"], "msg": "it is missing"}]],
    )


Decorator = Callable[[Callable[[Request], Awaitable[Response]]], Any]


def error(status: int, document: Document) -> tuple[int, Document]:
    """A problem as Tesseract's clients read it: 422 has the list that FastAPI gives."""
    if status != 422:
        return status, document
    items = document.get("errors") or [{"detail": in_words(document)}]
    detail = [
        {
            "type": "value_error",
            "loc": _place(item),
            "msg": item["detail"],
        }
        for item in items
    ]
    return status, {**document, "detail": detail}


def _place(item: Document) -> list[str]:
    if "parameter" in item:  # all of them are in the path
        return ["path", item["parameter"]]
    return ["body", *item.get("pointer", "#")[1:].split("/")[1:]]


def router(settings: Settings) -> APIRouter:
    """The endpoints of the protocol."""
    prefix = PREFIX + "/{model}"
    routes = APIRouter(prefix=prefix, tags=["Tesseract"])
    invalid = problems(422, model=TesseractProblem)
    errors = problems(400, 404, 408, 413, 429, 503) | invalid

    def post(path: str, kind: type[BaseModel], answer: Any, summary: str) -> Decorator:
        return routes.post(
            path,
            summary=summary,
            responses={200: {"model": answer}, **errors},
            openapi_extra={**path_parameters(prefix), **json_body(kind)},
        )

    @routes.get("/health", summary="Is the model ready?", responses=problems(404, 503) | invalid)
    async def health(request: Request, model: Name) -> TesseractHealth:
        """200 if it serves."""
        services(request).registry.get(model)
        return TesseractHealth()

    @routes.get("/openapi.json", include_in_schema=False)
    def document(request: Request, model: Name) -> dict[str, Any]:
        """The model's own document, from which clients learn its inputs and outputs."""
        return describe(services(request).registry.get(model))

    @post("/apply", ApplyBody, dict[str, EncodedArray], "Evaluate a model")
    @direct
    async def apply(request: Request) -> Response:
        """Every output."""
        asked = _ParsedRequest(request)
        call = asked.call(await read_query(request, ApplyBody, settings))
        return asked.answer({y: asked.shaped(y, a) for y, a in (await call.value()).items()})

    @post("/jacobian", JacobianBody, dict[str, dict[str, EncodedArray]], "Differentiate a model")
    @direct
    async def jacobian(request: Request) -> Response:
        """The Jacobian of each output by each input."""
        asked = _ParsedRequest(request)
        body = await read_query(request, JacobianBody, settings)
        call, inputs, outputs = asked.pairs(body, body.jac_inputs, body.jac_outputs, "jac")
        call.limit(sum(asked.jacobian_numbers(call, y, x) for y in outputs for x in inputs))
        found = await asked.derive(call.jacobian(outputs, inputs))
        blocks = {(y, x): asked.dense(y, x, block) for (y, x), block in found.items()}
        check = {f"d{y}/d{x}": block for (y, x), block in blocks.items()}
        return asked.answer({y: {x: blocks[y, x] for x in inputs} for y in outputs}, check)

    @post(
        "/jacobian_vector_product",
        JvpBody,
        dict[str, EncodedArray],
        "Multiply the Jacobian with tangents",
    )
    @direct
    async def jacobian_vector_product(request: Request) -> Response:
        """The derivative of each output along the tangents."""
        asked = _ParsedRequest(request)
        body = await read_query(request, JvpBody, settings)
        call, inputs, outputs = asked.pairs(body, body.jvp_inputs, body.jvp_outputs, "jvp")
        tangents = asked.vectors("tangent_vector", body.tangent_vector, inputs, call)
        found = await asked.derive(call.jvp(tangents, outputs))
        return asked.answer({y: asked.shaped(y, found[y]) for y in outputs})

    @post(
        "/vector_jacobian_product",
        VjpBody,
        dict[str, EncodedArray],
        "Multiply cotangents with the Jacobian",
    )
    @direct
    async def vector_jacobian_product(request: Request) -> Response:
        """The gradient, by each input, of the scalar product of cotangents with outputs."""
        asked = _ParsedRequest(request)
        body = await read_query(request, VjpBody, settings)
        call, inputs, outputs = asked.pairs(body, body.vjp_inputs, body.vjp_outputs, "vjp")
        cotangents = asked.vectors("cotangent_vector", body.cotangent_vector, outputs, call)
        found = await asked.derive(call.vjp(cotangents, inputs))
        return asked.answer({x: asked.shaped(x, found[x]) for x in inputs})

    @post("/abstract_eval", AbstractBody, dict[str, ShapeAndType], "Say how large outputs are")
    @direct
    async def abstract_eval(request: Request) -> Response:
        """Shape and type of each output, from those of the inputs; nothing is computed."""
        asked = _ParsedRequest(request)
        body = await read_query(request, AbstractBody, settings)
        return _json(asked.shapes(body), asked.headers)

    return routes


class _ParsedRequest:
    """A request about a model: its arrays read, and the answer in its encoding."""

    def __init__(self, request: Request) -> None:
        self.shared = services(request)
        self.model: Model = self.shared.registry.get(request.path_params["model"])
        self.known: Derivatives = derivatives(self.model)
        self.encoding = _encoding(request.headers.get("accept", ""))
        self.lone = False
        manifest = self.model.manifest
        self.headers = {
            "x-model-name": manifest.model,
            "x-model-version": str(manifest.version),
        }

    def call(self, body: ApplyBody) -> Call:
        """The inputs as arrays, ready to be differentiated at. Raises Invalid."""
        given = {}
        for name, array in body.inputs.items():
            if name not in self.known.inputs:
                raise self._unknown("#/inputs", self.known.inputs)
            given[name] = _decode(array, self.known.inputs[name], f"#/inputs/{name}")
        body.inputs.clear()
        for name in self.known.inputs:
            if name not in given:
                raise at("#/inputs", (), f"the input {name} is missing")
        arrays, self.lone, _ = add_dimensions(given, self.known.inputs)
        pointers = {name: f"#/inputs/{name}" for name in arrays}
        return Call(self.model, arrays, self.shared, pointers)

    def pairs(
        self, body: ApplyBody, inputs: list[str], outputs: list[str], prefix: str
    ) -> tuple[Call, list[str], list[str]]:
        """The call, the inputs to differentiate by, and the outputs. Raises Invalid.

        The names are those of the members ``<prefix>_inputs`` and ``<prefix>_outputs``.
        """
        return (
            self.call(body),
            self._names(f"{prefix}_inputs", inputs, self.known.differentiable_inputs),
            self._names(f"{prefix}_outputs", outputs, self.known.differentiable_outputs),
        )

    def _names(self, member: str, names: list[str], good: list[str]) -> list[str]:
        for index, name in enumerate(names):
            if name not in good:
                raise at(f"#/{member}", [index], f"it should be one of: {', '.join(good)}")
        return list(dict.fromkeys(names))

    def vectors(
        self, member: str, given: Mapping[str, EncodedArray], names: list[str], call: Call
    ) -> dict[str, Array]:
        """A tangent or cotangent for each of ``names``, of its shape. Raises Invalid."""
        tensors = {**self.known.outputs, **self.known.inputs}
        sizes = call.sizes()
        found = {}
        for name in names:
            if name not in given:
                raise at(f"#/{member}", (), f"the one of {name} is missing")
            tensor = tensors[name]
            shape = [sizes[s] if isinstance(s, str) else s for s in tensor.shape]
            expected = shape[1:] if self._is_lone(tensor) else shape
            array = _decode(given[name], tensor, f"#/{member}/{name}")
            if list(array.shape) != expected:
                detail = f"its shape should be {expected}, not {list(array.shape)}"
                raise at(f"#/{member}/{name}", (), detail)
            found[name] = array.reshape(shape)
        return found

    def jacobian_numbers(self, call: Call, y: str, x: str) -> int:
        """How many numbers the Jacobian has."""
        sizes = call.sizes()
        return row_numbers(self.known.outputs[y], sizes) * row_numbers(self.known.inputs[x], sizes)

    def dense(self, y: str, x: str, block: Array) -> Array:
        """The Jacobian [*y.shape, *x.shape] from each row's own, [n, *y, *x]."""
        of, by = self.known.outputs[y], self.known.inputs[x]
        if of.shape[:1] != (ROWS,):
            return block
        if self.lone:
            first: Array = block[0]
            return first
        if by.shape[:1] != (ROWS,):
            return block
        rows, split = block.shape[0], len(of.shape)
        found = np.zeros((*block.shape[:split], rows, *block.shape[split:]), block.dtype)
        every = np.arange(rows)
        # Both indices of rows, with all that lies between them: they come first then.
        between: list[Any] = [slice(None)] * (split - 1)
        found[(every, *between, every)] = block
        return found

    def shaped(self, name: str, array: Array) -> Array:
        """An output, or what belongs to an input, with the dimensions that the request had."""
        tensor = self.known.outputs.get(name) or self.known.inputs[name]
        return drop_dimensions(array, tensor, self.lone, single=False)

    def shapes(self, body: AbstractBody) -> dict[str, Any]:
        """Shape and type of each output. Raises Invalid."""
        sizes: dict[str, int] = {}
        with_rows = []
        for name, tensor in self.known.inputs.items():
            if name not in body.inputs:
                raise at("#/inputs", (), f"the input {name} is missing")
            given = list(body.inputs[name].shape)
            if tensor.shape[:1] == (ROWS,):
                with_rows.append(len(given) < len(tensor.shape))
                given = [1, *given] if with_rows[-1] else given
            if len(given) != len(tensor.shape):
                detail = f"it should be {shape_text(tensor.shape)}"
                raise at(f"#/inputs/{name}", ["shape"], detail)
            for size, expected in zip(given, tensor.shape, strict=True):
                known = sizes.setdefault(expected, size) if isinstance(expected, str) else expected
                if size != known:
                    detail = f"it should be {shape_text(tensor.shape)}"
                    raise at(f"#/inputs/{name}", ["shape"], detail)
        self.lone = bool(with_rows) and all(with_rows)
        found = {}
        for name, tensor in self.known.outputs.items():
            shape = [sizes[s] if isinstance(s, str) else s for s in tensor.shape]
            shape = shape[1:] if self._is_lone(tensor) else shape
            found[name] = {"shape": shape, "dtype": tensor.dtype}
        return found

    def _is_lone(self, tensor: Tensor) -> bool:
        return self.lone and tensor.shape[:1] == (ROWS,)

    def _unknown(self, pointer: str, known: Mapping[str, Tensor]) -> Exception:
        return at(pointer, (), f"there is one that is not known; there are: {', '.join(known)}")

    async def derive(self, work: Any) -> Any:
        """What ``work`` gives. Raises NotFound where the model lacks the functions for it."""
        try:
            return await work
        except Unsupported as error:
            raise NotFound(str(error)) from None

    def answer(self, document: Any, check: Mapping[str, Array] | None = None) -> Response:
        """Arrays as the client asked for them. Raises Invalid if JSON has no word for a number."""
        if self.encoding != BASE64:
            check_finite(document if check is None else check)
        return _json(_encode(document, self.encoding), self.headers)


def _encoding(accept: str) -> str:
    """The encoding by the header Accept: json, unless base64 comes first."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower().removeprefix("application/")
        if kind in FORMATS:
            return kind
    return FORMATS[0]


def _encode(found: Any, encoding: str) -> Any:
    if isinstance(found, dict):
        return {name: _encode(item, encoding) for name, item in found.items()}
    data: dict[str, Any]
    if encoding == BASE64:
        data = {"buffer": base64.b64encode(found.tobytes()).decode(), "encoding": "base64"}
    else:
        data = {"buffer": np.ascontiguousarray(found) if found.ndim else found.item()}
        data["encoding"] = "json"
    return {
        "object_type": "array",
        "shape": list(found.shape),
        "dtype": str(found.dtype),
        "data": data,
    }


def _decode(given: EncodedArray, tensor: Tensor, pointer: str) -> Array:
    """An array of the tensor's type, from any type that it can be had of. Raises Invalid."""
    wanted = np.dtype(tensor.dtype)
    if given.data.encoding != "base64":
        try:
            array = read_array(given.data.buffer, wanted)
        except Unreadable as error:
            raise at(pointer, ["data", "buffer", *error.where], error.detail) from None
    else:
        if given.dtype not in DTYPES or not np.can_cast(given.dtype, wanted, "same_kind"):
            raise at(pointer, ["dtype"], f"it should be {tensor.dtype}")
        try:
            content = base64.b64decode(given.data.buffer, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise at(pointer, ["data", "buffer"], "it should be base64") from None
        dtype = np.dtype(given.dtype)
        if len(content) != prod(given.shape) * dtype.itemsize:
            raise at(pointer, ["data", "buffer"], "it should have the bytes that shape says")
        array = np.frombuffer(content, dtype).astype(wanted)
    if array.size != prod(given.shape):
        raise at(pointer, ["data", "buffer"], "it should have as many elements as shape says")
    return array.reshape(given.shape)


def _json(document: Any, headers: Mapping[str, str]) -> Response:
    with Stage("write"):
        content = as_json(document)
    return Response(content, media_type="application/json", headers=dict(headers))


def describe(model: Model) -> dict[str, Any]:
    """The OpenAPI document of one model, with the schemas that Tesseract's clients look for."""
    known = derivatives(model)

    def arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": list(tensors),
            "properties": {
                name: {
                    "allOf": [{"$ref": "#/components/schemas/EncodedArray"}],
                    "array_flags": [],
                    "shape": _shape(tensor),
                    "dtype": tensor.dtype,
                }
                for name, tensor in tensors.items()
            },
        }

    def differentiable(tensors: Mapping[str, Tensor], names: list[str]) -> dict[str, Any]:
        return {n: {"shape": _shape(tensors[n]), "dtype": tensors[n].dtype} for n in names}

    def operation(kind: str) -> dict[str, Any]:
        body = {"content": {"application/json": {"schema": {"$ref": kind}}}, "required": True}
        return {"post": {"requestBody": body, "responses": {"200": {"description": "Arrays"}}}}

    schemas = "#/components/schemas/"
    paths: dict[str, Any] = {
        "/apply": operation(f"{schemas}ApplyInputSchema"),
        "/abstract_eval": operation(f"{schemas}AbstractBody"),
        "/health": {"get": {"responses": {"200": {"description": "It serves"}}}},
    }
    for path, kind, there in (
        ("/jacobian", JacobianBody, known.has_vjp),
        ("/jacobian_vector_product", JvpBody, known.has_jvp),
        ("/vector_jacobian_product", VjpBody, known.has_vjp),
    ):
        if there:
            paths[path] = operation(f"{schemas}{kind.__name__}")
    components: dict[str, Any] = {}
    for body in (JacobianBody, JvpBody, VjpBody, AbstractBody):
        schema = body.model_json_schema(ref_template=schemas + "{model}")
        components |= schema.pop("$defs", {})
        components[body.__name__] = schema
    inputs = differentiable(known.inputs, known.differentiable_inputs)
    outputs = differentiable(known.outputs, known.differentiable_outputs)
    components |= {
        "Apply_InputSchema": arrays(known.inputs),
        "Apply_OutputSchema": arrays(known.outputs),
        "ApplyInputSchema": {
            "type": "object",
            "required": ["inputs"],
            "properties": {"inputs": {"$ref": f"{schemas}Apply_InputSchema"}},
            "differentiable_arrays": inputs,
        },
        "ApplyOutputSchema": {
            "allOf": [{"$ref": f"{schemas}Apply_OutputSchema"}],
            "differentiable_arrays": outputs,
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": model.manifest.model, "version": str(model.manifest.version)},
        "paths": paths,
        "components": {"schemas": components},
        "x-supported-output-formats": FORMATS,
    }


def _shape(tensor: Tensor) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in tensor.shape]
