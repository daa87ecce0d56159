"""Errors as RFC 9457 problem details: what was wrong, where, and what to do about it.

An answer has at most ten ``errors``, stays under 4 KB and never repeats what the client sent:
hostile input (NaN, lone surrogates, megabytes of text) then cannot break the error itself.
"""

import errno
import logging
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from contract.errors import PictureDamaged, PictureError, PictureTooLarge, PictureUnsupported
from service.runtime.errors import (
    BadTensor,
    ModelError,
    ModelNotReady,
    NoSuchModel,
    QueueFull,
    TooManyNumbers,
)

MAX_ERRORS = 10
MOST_CONSIDERED = 100  # errors of one validation: 15,000 unknown fields give 15,000
UNION_TAGS = {"float", "int", "str"}  # in pydantic's locations, not in the document
MAX_TEXT = 240  # characters of one message: ten of them stay under 4 KB even in UTF-8

# Phrases of RFC 9110; older Pythons have those of earlier RFCs.
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}

log = logging.getLogger("gradserve")


class ErrorItem(BaseModel):
    """One thing that was wrong, and where."""

    detail: str = Field(description="What was wrong", examples=["Input should be a finite number"])
    pointer: str | None = Field(
        default=None, description="JSON pointer into the body (RFC 6901)", examples=["#/x/3"]
    )
    parameter: str | None = Field(
        default=None, description="Name of the query or path parameter", examples=["top_k"]
    )


class ProblemDetails(BaseModel):
    """An error by RFC 9457, ``application/problem+json``."""

    type: str = Field(default="about:blank", description="Kind of problem; the title says it")
    title: str = Field(description="The HTTP status in words", examples=["Unprocessable Content"])
    status: int = Field(description="The HTTP status", examples=[422])
    detail: str = Field(
        description="What happened and what to do",
        examples=["x.3: Input should be a finite number"],
    )
    errors: list[ErrorItem] = Field(default=[], description="At most ten single errors")


class Problem(Exception):
    """An answer other than success. Raised anywhere under an endpoint."""

    status = 500

    def __init__(
        self,
        detail: str,
        errors: Sequence[ErrorItem] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = headers


class Malformed(Problem):
    """400: the request cannot be read as what it claims to be."""

    status = 400


class NotFound(Problem):
    """404: no such model."""

    status = 404


class TooLarge(Problem):
    """413: the body, or what it decodes to, is over a limit."""

    status = 413


class WrongType(Problem):
    """415: neither the content type nor the content is one that is read here."""

    status = 415


class Invalid(Problem):
    """422: readable, but a value is not one that can be worked with."""

    status = 422


class Busy(Problem):
    """429: the queue is full."""

    status = 429

    def __init__(self, detail: str = "Too many requests wait already; try again shortly") -> None:
        super().__init__(detail, headers={"retry-after": "1"})


class NotReady(Problem):
    """503: the model is not loaded."""

    status = 503


# The problem for each error of the runtime and of pictures, which know nothing of HTTP.
_PROBLEMS: dict[type[Exception], type[Problem]] = {
    NoSuchModel: NotFound,
    ModelNotReady: NotReady,
    QueueFull: Busy,
    BadTensor: Invalid,
    TooManyNumbers: TooLarge,
    PictureDamaged: Malformed,
    PictureTooLarge: TooLarge,
    PictureUnsupported: WrongType,
}
BELOW = (ModelError, PictureError)  # their base classes


def as_problem(error: ModelError | PictureError) -> Problem:
    """The answer to an error of the runtime or of a picture."""
    return _PROBLEMS[type(error)](error.detail)


class ClientGone(Exception):
    """The client closed the connection before its request was whole; no answer can be sent."""


PROBLEM_TYPE = "application/problem+json"


def problem_response(
    status: int,
    detail: str,
    errors: Iterable[ErrorItem] = (),
    headers: dict[str, str] | None = None,
    **members: str,
) -> Response:
    """The answer for an error: short, valid JSON whatever the input was.

    ``members`` are added to the document, as RFC 9457 allows.
    """
    title = TITLES.get(status) or HTTPStatus(status).phrase
    document = ProblemDetails(
        title=title,
        status=status,
        detail=detail[:MAX_TEXT],
        errors=[
            item.model_copy(update={"detail": item.detail[:MAX_TEXT]})
            for item in list(errors)[:MAX_ERRORS]
        ],
    )
    content = document.model_dump(exclude_none=True) | members
    return Response(orjson.dumps(content), status, headers=headers, media_type=PROBLEM_TYPE)


def from_problem(problem: Problem | ModelError | PictureError, **members: str) -> Response:
    """The answer for a raised problem, or for an error of the runtime or of a picture."""
    if not isinstance(problem, Problem):
        problem = as_problem(problem)
    return problem_response(
        problem.status, problem.detail, problem.errors, problem.headers, **members
    )


def crash_response(scope: Scope, error: Exception) -> Response:
    """The answer for an internal error: the traceback goes to the log, the client gets a 500."""
    log.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
    return problem_response(500, "Internal error of the service; its log has the details")


def from_validation(error: ValidationError) -> Problem:
    """The problem behind a failed pydantic validation of a JSON body: 400 if not JSON at all."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    del errors[MOST_CONSIDERED:]
    if errors[0]["type"] == "json_invalid":
        # pydantic's message gives line and column, and never quotes the text.
        return Malformed(errors[0]["msg"])
    items = []
    # In a union, errors of the branch of the right type say more than those of other types.
    fitting = {pointer(item["loc"]) for item in errors if not item["type"].endswith("_type")}
    for item in errors:
        if item["type"].endswith("_type") and pointer(item["loc"]) in fitting:
            continue
        # The name of an unknown field is the client's own text: point at what contains it.
        unknown = item["type"] == "extra_forbidden"
        location = item["loc"][:-1] if unknown else item["loc"]
        detail = "There is a field that is not known here" if unknown else _safe(item["msg"])
        if item["type"] == "model_type":  # names a class of ours
            detail = "Input should be an object"
        items.append(ErrorItem(detail=detail, pointer=pointer(location)))
    return invalid(*_merge_unions(items))


def from_query(error: ValidationError) -> Problem:
    """The problem behind failed query parameters."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    return invalid(
        *(
            ErrorItem(detail="There is a query parameter that is not known here")
            if item["type"] == "extra_forbidden"
            else ErrorItem(detail=_safe(item["msg"]), parameter=str(item["loc"][0]))
            for item in errors
        )
    )


def pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer for a pydantic location, leaving out the tags that unions put in."""
    parts = [
        str(part)
        for part in location
        if isinstance(part, int) or (part.isidentifier() and part not in UNION_TAGS)
    ]
    return "#" + "".join(f"/{part}" for part in parts)


def invalid(*items: ErrorItem) -> Invalid:
    """The problem for invalid values; its detail says what is wrong and where."""
    return Invalid(_summary(items), items)


def _merge_unions(items: list[ErrorItem]) -> list[ErrorItem]:
    """One item for each place. Of a union's branches, the one that got furthest fits best."""
    merged: dict[str, list[str]] = {}
    for item in items:
        merged.setdefault(item.pointer or "#", []).append(item.detail)
    return [
        ErrorItem(detail=", or: ".join(details), pointer=place)
        for place, details in merged.items()
        if not any(other.startswith(f"{place}/") for other in merged)
    ]


def _summary(items: Sequence[ErrorItem]) -> str:
    """A summary in one line: a single error in full, or the places of several."""
    places = [(item.pointer or "")[2:].replace("/", ".") or item.parameter for item in items]
    if len(items) == 1:
        return f"{places[0]}: {items[0].detail}" if places[0] else items[0].detail
    named = [place for place in places if place]
    return f"{len(items)} values are invalid: {', '.join(named[:MAX_ERRORS])}"


def _safe(message: str) -> str:
    return message.encode("utf-8", "replace").decode()


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document, FastAPI's own included."""

    async def on_problem(_request: Request, problem: Any) -> Response:
        return from_problem(problem)

    async def on_http(_request: Request, error: Any) -> Response:
        detail = {
            404: "There is nothing at this address; /docs lists what there is",
            405: "This address does not answer that method; the Allow header lists those it does",
        }.get(error.status_code, HTTPStatus(error.status_code).phrase)
        headers = error.headers
        if headers and headers.get("Allow") == "GET":
            headers = headers | {"Allow": "GET, HEAD"}  # see service.web.head
        return problem_response(error.status_code, detail, headers=headers)

    async def on_validation(_request: Request, error: Any) -> Response:
        # FastAPI's own handler repeats the input, and so fails on NaN and on lone surrogates.
        items = [
            ErrorItem(detail=_safe(str(item["msg"])), parameter=str(item["loc"][1]))
            for item in error.errors()[:MAX_ERRORS]
            if len(item["loc"]) > 1 and item["type"] != "extra_forbidden"
        ]
        return problem_response(422, _summary(items) if items else TITLES[422], items)

    async def on_system(_request: Request, error: Any) -> Response:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise error
        detail = "The service has no file descriptors left; try again shortly"
        return problem_response(503, detail, headers={"retry-after": "1"})

    async def on_crash(request: Request, error: Exception) -> Response:
        return crash_response(request.scope, error)

    for kind in (Problem, *BELOW):
        app.add_exception_handler(kind, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(OSError, on_system)
    app.add_exception_handler(Exception, on_crash)
