"""Query parameters, read strictly: an unknown one is an error, and never silently ignored."""

from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.web.errors import Invalid, from_query

Query = TypeVar("Query", bound=BaseModel)


def read_query(request: Request, kind: type[Query]) -> Query:
    """The query parameters as ``kind``. Raises Invalid, also for one that ``kind`` lacks or that
    is given twice."""
    text = request.scope["query_string"].decode("latin-1")
    if not text:
        return kind()
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise Invalid("The query has too many parameters") from None
    try:
        query = kind.model_validate_strings(dict(pairs))
    except ValidationError as error:
        raise from_query(error) from None
    if len(pairs) > len(dict(pairs)):
        raise Invalid("A query parameter is given twice; give each once")
    return query


def refuse_query(request: Request) -> None:
    """Raise Invalid if there are query parameters, where all that is asked is in the body."""
    if request.scope["query_string"]:
        raise Invalid("No query parameters are read here: put them into the JSON body instead")
