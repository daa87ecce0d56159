"""OpenAPI for endpoints that read and write their bodies themselves.

FastAPI derives documentation from parameters, and then also validates, copies and serialises by
them. The busy endpoints do that once, themselves; their documentation is generated from the same
pydantic models that they validate with.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from service.web.errors import PROBLEM_TYPE, ErrorItem, ProblemDetails
from service.web.request_record import Stage

COMPONENTS = "#/components/schemas/"
_FASTAPI_ERRORS = (f"{COMPONENTS}HTTPValidationError", f"{COMPONENTS}ValidationError")

_WHEN = {
    400: "The request cannot be read",
    401: "No API key, or a wrong one",
    404: "There is no such model",
    408: "The body did not arrive in time",
    413: "The body, or what it decodes to, is over a limit",
    415: "The content type, or the content, is not supported",
    422: "A value is invalid",
    429: "Too many requests are waiting; Retry-After says when to try again",
    503: "The model is not loaded",
}


def operation_id(route: APIRoute) -> str:
    """A name for generated clients to call an endpoint by, such as post_gradient."""
    method = min(route.methods or {"GET"}).lower()
    return re.sub(r"\W+", "_", f"{method}{route.path_format}").strip("_")


def contents(*kinds: str) -> dict[str, Any]:
    """OpenAPI of an answer of one of these media types: text, JSON's object, or else bytes."""
    types = {
        kind: {"type": "object"}
        if kind == "application/json"
        else {"type": "string"} | ({} if kind.startswith("text/") else {"format": "binary"})
        for kind in (kind.partition(";")[0] for kind in kinds)
    }
    return {"content": {kind: {"schema": schema} for kind, schema in types.items()}}


def problems(
    *statuses: int, model: type[ProblemDetails] = ProblemDetails
) -> dict[int | str, dict[str, Any]]:
    """Documentation of the errors an endpoint may give, in the words of its protocol."""
    schema: dict[str, Any] = {"$ref": COMPONENTS + ProblemDetails.__name__}
    if model is not ProblemDetails:
        schema = model.model_json_schema()
    return {
        status: {"description": _WHEN[status], "content": {PROBLEM_TYPE: {"schema": schema}}}
        for status in statuses
    }


def complete_document(app: FastAPI, key_schemes: dict[str, Any]) -> None:
    """Complete the document of ``app``: every schema among the components, under its own name.

    FastAPI knows nothing of the schemas that endpoints bring by ``openapi_extra``. Where keys are
    asked for, ``key_schemes`` says how they are sent.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for model in (ErrorItem, ProblemDetails):
                schemas.setdefault(model.__name__, model.model_json_schema())
            _move_definitions(document, schemas)
            _name_bodies(document, schemas)
            _replace_validation_errors(document, schemas)
            if key_schemes:
                components["securitySchemes"] = key_schemes
                document["security"] = [{name: []} for name in key_schemes]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _move_definitions(node: Any, schemas: dict[str, Any]) -> None:
    """Move the ``$defs`` that pydantic writes beside a schema to where references resolve."""
    if isinstance(node, dict):
        for name, schema in node.pop("$defs", {}).items():
            _move_definitions(schema, schemas)
            schemas.setdefault(name, schema)
        reference = node.get("$ref")
        if isinstance(reference, str):
            node["$ref"] = reference.replace("#/$defs/", COMPONENTS)
        for child in list(node.values()):
            _move_definitions(child, schemas)
    elif isinstance(node, list):
        for child in node:
            _move_definitions(child, schemas)


def _replace_validation_errors(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Describe 422 as this service answers it, in place of FastAPI's own schema."""
    for path in document["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if content.get("application/json", {}).get("schema", {}).get("$ref") in _FASTAPI_ERRORS:
                operation["responses"]["422"] = problems(422)[422]
    for reference in _FASTAPI_ERRORS:
        schemas.pop(reference.removeprefix(COMPONENTS), None)


def _name_bodies(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give bodies and problems a name among the components: generated clients call types so."""
    for path in document["paths"].values():
        for operation in path.values():
            bodies = list(operation.get("requestBody", {}).get("content", {}).values())
            for answer in operation["responses"].values():
                bodies += [
                    m for kind, m in answer.get("content", {}).items() if kind == PROBLEM_TYPE
                ]
            for media in bodies:
                schema = media["schema"]
                if "title" in schema and "$ref" not in schema:
                    schemas.setdefault(schema["title"], schema)
                    media["schema"] = {"$ref": COMPONENTS + schema["title"]}


def json_body(model: type[BaseModel], *, required: bool = True, **limits: int) -> dict[str, Any]:
    """``openapi_extra`` for a JSON body of ``model``; ``limits`` gives fields their most items."""
    schema = model.model_json_schema()
    for field, most in limits.items():
        for branch in schema["properties"][field].get("anyOf", [schema["properties"][field]]):
            if branch.get("type") == "array":
                branch["maxItems"] = most
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}
    }


def query_parameters(model: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` for query parameters that are the fields of ``model``."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in required,
                "description": field.pop("description", ""),
                "schema": field,
            }
            for name, field in schema["properties"].items()
        ]
    }


def path_parameters(path: str) -> dict[str, Any]:
    """``openapi_extra`` for the placeholders of ``path``, where the endpoint reads them itself."""
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ]
    }


def json_response(document: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer, serialised once. ``document`` may hold NumPy arrays; what isn't finite is null."""
    with Stage("write"):
        content = as_json(document)
    return Response(content, headers=headers, media_type="application/json")


def as_json(document: Any) -> bytes:
    """JSON of a document that may hold NumPy arrays, also of a single number (shape [])."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_listed)


def _listed(value: Any) -> Any:
    """Of an array that orjson leaves to us: one without dimensions, or not in C's order."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")
