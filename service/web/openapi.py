"""OpenAPI for endpoints that read and write their bodies themselves.

FastAPI derives documentation from parameters, and then also validates, copies and serialises by
them. The busy endpoints do that once, by hand; what they accept is still described by the very
pydantic models that they validate with.
"""

from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from service.web.errors import PROBLEM_TYPE, ProblemDetails

_WHEN = {
    400: "The request cannot be read",
    401: "No API key, or another than the service's",
    404: "There is no such model",
    408: "The body did not arrive in time",
    413: "The body, or what it decodes to, is over a limit",
    415: "The content type, or the content, is not one that is read here",
    422: "A value cannot be worked with",
    429: "Too many requests wait already; Retry-After says when to come back",
    503: "The model is not loaded",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of the errors an endpoint may give."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {
        status: {"description": _WHEN[status], "content": {PROBLEM_TYPE: {"schema": schema}}}
        for status in statuses
    }


def json_body(model: type[BaseModel], **limits: int) -> dict[str, Any]:
    """``openapi_extra`` for a JSON body of ``model``; ``limits`` gives fields their most items."""
    schema = model.model_json_schema()
    for field, most in limits.items():
        for branch in schema["properties"][field].get("anyOf", [schema["properties"][field]]):
            if branch.get("type") == "array":
                branch["maxItems"] = most
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


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


def json_response(document: Any) -> Response:
    """An answer, serialised once. ``document`` may hold NumPy arrays, of finite numbers."""
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")
