"""What the endpoints that call any model share: numbers from JSON, one call, and its errors.

Each protocol is a thin file beside this one, which reads its messages, calls ``compute`` and writes
its answer. All of them so have the same limits, and reach a model by the one data plane.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite, prod
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Request
from pydantic import BaseModel, Field, ValidationError, WithJsonSchema
from pydantic_core import from_json

from contract.manifest import Tensor, shape_text
from contract.signatures import ROWS
from service.runtime.dataplane import infer
from service.runtime.errors import BadTensor
from service.runtime.loader import Model
from service.runtime.session import Array
from service.settings import Settings
from service.web.body import SMALL_BYTES, check_json, content_type, parsing, read_body
from service.web.errors import ErrorItem, Invalid, Malformed, from_validation, invalid
from service.web.state import Services

DIRECTIONS = "k"  # the name of the dimension that counts tangents, or cotangents, of a row
NUMBERS = {int, float}  # not bool, which is a kind of int to Python
MAX_DIMENSIONS = 16
FEW = 16  # numbers
EXACT = 2**53  # beyond it a float64 has no room for every integer

# A number or nested lists of them, as OpenAPI has it. Generated clients can't follow a type that
# contains itself, so it says no more than that.
Nested = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": {}}]}),
    Field(examples=[[[1.0, 2.0, 3.0]]]),
]


Query = TypeVar("Query", bound=BaseModel)


class Unreadable(Exception):
    """Not an array of numbers: what is wrong, and the indices of where."""

    def __init__(self, detail: str, where: Sequence[int] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = tuple(where)


def read_document(body: bytes | bytearray | memoryview) -> Any:
    """The JSON of a body, as Python objects. Raises Malformed.

    NaN and Infinity, which Python's clients write, are read: whoever looks at them says where.
    """
    try:
        return from_json(bytes(body))
    except ValueError as error:
        # Its message gives line and column, and never quotes the text.
        raise Malformed(f"Invalid JSON: {error}") from None


async def read_query(request: Request, kind: type[Query], settings: Settings) -> Query:
    """The JSON body of a request, under whatever content type.

    Raises WrongType (compressed), TooLarge, Malformed, Invalid, QueueFull or ClientGone.
    """
    content_type(request)
    body = await read_body(request, settings.max_json_bytes)
    if not body:
        raise Malformed("The body is empty; send a JSON object")
    check_json(request, body)
    async with parsing(request, body):
        return await as_query(body, kind)


async def as_query(body: bytes | bytearray | memoryview, kind: type[Query]) -> Query:
    """A body as a ``kind``. Raises Malformed or Invalid. Call it within ``parsing``.

    A large one takes two steps, and others get a turn between them; a small one takes half as long
    in one.
    """
    try:
        if len(body) < SMALL_BYTES:
            return kind.model_validate_json(bytes(body))
        parsed = read_document(body)
        await asyncio.sleep(0)
        return kind.model_validate(parsed)
    except ValidationError as error:
        raise from_validation(error) from None


def read_array(data: Any, dtype: "np.dtype[np.generic]") -> Array:
    """A number, or nested lists of equal lengths, as an array of ``dtype``. Raises Unreadable.

    Looks at types a level at a time: a number takes some 50 ns, whatever it is nested in.
    """
    if type(data) is list and data and (kinds := set(map(type, data))) <= NUMBERS:
        return _typed(data, kinds, dtype, [len(data)])  # as the loop below would, and sooner
    shape: list[int] = []
    level = [data]
    while not (kinds := set(map(type, level))) <= NUMBERS:
        if kinds != {list} or len(shape) == MAX_DIMENSIONS:
            fitting = {list} if type(level[0]) is list and len(shape) < MAX_DIMENSIONS else NUMBERS
            index = next((i for i, item in enumerate(level) if type(item) not in fitting), 0)
            what = "a list, as those before it are" if list in fitting else "a number"
            raise Unreadable(f"it should be {what}", _place(index, shape))
        width = len(level[0])
        if set(map(len, level)) != {width}:
            index = next(i for i, item in enumerate(level) if len(item) != width)
            raise Unreadable(
                f"it should have {width} elements, as those before it have", _place(index, shape)
            )
        shape.append(width)
        level = list(chain.from_iterable(level))
    return _typed(level, kinds, dtype, shape).reshape(shape)


def _typed(
    level: list[Any], kinds: set[type], dtype: "np.dtype[np.generic]", shape: list[int]
) -> Array:
    """A flat list of numbers as ``dtype``, if that can hold them."""
    whole = dtype.kind in "iu"
    try:
        values = np.array(level, dtype=np.int64 if whole and kinds == {int} else np.float64)
    except OverflowError:
        raise Unreadable("there is a number that is too large") from None
    if whole:
        limits = np.iinfo(str(dtype))
        low, high = int(limits.min), int(limits.max)
        if values.dtype.kind == "f":
            low, high = max(low, -EXACT), min(high, EXACT)
        wrong = (values < low) | (values > high) | (values != np.floor(values))
    else:
        if dtype != values.dtype:
            with np.errstate(over="ignore"):
                values = values.astype(dtype)
        if all_finite(values):
            return values
        wrong = ~np.isfinite(values)
    if wrong.any():
        # In plain words: each protocol names its types differently.
        finite = f"a finite number that a float of {8 * dtype.itemsize} bits can hold"
        detail = f"an integer from {low} to {high}" if whole else finite
        raise Unreadable(f"it should be {detail}", _place(int(np.argmax(wrong)), shape))
    return values.astype(dtype, copy=False)


def _place(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(index, shape)) if shape else ()


def at(pointer: str, where: Sequence[int | str], detail: str) -> Invalid:
    """The problem of the value at ``where`` under ``pointer``."""
    return invalid(ErrorItem(detail=detail, pointer="/".join([pointer, *map(str, where)])))


async def compute(
    model: Model,
    inputs: Mapping[str, Array],
    wanted: Sequence[str],
    shared: Services,
    pointers: Mapping[str, str],
    everything: str = "#/inputs",
) -> dict[str, Array]:
    """The ``wanted`` outputs, in this request's place of the queue.

    ``pointers`` says where in the body each input is, and ``everything`` where all of them are.
    Raises Invalid, TooManyNumbers or QueueFull.
    """
    settings = shared.settings
    images = model.classifier is not None
    places = 1
    if images or model.curve is not None:
        rows = count_rows(model, inputs)
        most = settings.max_images if images else settings.max_x
        if rows > most:
            raise Invalid(f"At most {most} rows can be asked for at once")
        places = rows if images else 1
    try:
        return await infer(model, inputs, wanted, shared.queue, places)
    except BadTensor as error:
        raise named(error, pointers, everything) from None


def named(error: BadTensor, pointers: Mapping[str, str], everything: str = "#/inputs") -> Invalid:
    """The same error, which says where in the body the tensor is."""
    name = error.tensor
    prefix = f"{name}: " if name else ""
    pointer = pointers.get(name, everything) if name else everything
    return at(pointer, (), prefix + error.detail)


def count_rows(model: Model, inputs: Mapping[str, Array]) -> int:
    """The number of rows, as the first input that has them says; 1 if none has."""
    known = model.signature.inputs
    for name, array in inputs.items():
        if name in known and known[name].shape[:1] == (ROWS,) and array.ndim:
            return int(array.shape[0])
    return 1


def check_finite(outputs: Mapping[str, Array]) -> None:
    """Raise Invalid that says where an output is not finite: JSON has no word for it."""
    place = not_finite(outputs)
    if place:
        raise Invalid(
            f"{place} is not a finite number: the model has no value there, or it is too large"
        )


def not_finite(outputs: Mapping[str, Array]) -> str:
    """The first element that is not finite, as ``y[0, 2]``; empty if there is none."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not all_finite(array.ravel()):
            where = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
            return f"{name}[{', '.join(str(int(i)) for i in where)}]" if where else name
    return ""


def all_finite(flat: Array) -> bool:
    """Is every number of a flat array of floats finite?"""
    if flat.size <= FEW:
        return all(map(isfinite, flat.tolist()))  # NumPy's take three times as long for one row
    return bool(np.logical_and.reduce(np.isfinite(flat)))  # .all() takes twice as long


def row_numbers(tensor: Tensor, sizes: Mapping[str, int]) -> int:
    """How many numbers a tensor has for these sizes of the named dimensions."""
    return prod(sizes[size] if isinstance(size, str) else size for size in tensor.shape)


def add_dimensions(
    given: Mapping[str, Array], known: Mapping[str, Tensor]
) -> tuple[dict[str, Array], bool, bool]:
    """The arrays with the dimensions that people leave out: of a lone row, and of a lone tangent.

    Says of both whether they were left out everywhere, so that the answer leaves them out too.
    Raises Invalid where an array has too few or too many dimensions.
    """
    plain = [
        given[name].ndim == len(known[name].shape) - 1
        for name in given
        if known[name].shape[:1] == (ROWS,) and DIRECTIONS not in known[name].shape
    ]
    lone = bool(plain) and all(plain)
    arrays, single = {}, []
    for name, array in given.items():
        shape = known[name].shape
        where = [i for i, size in enumerate(shape[:2]) if size == DIRECTIONS]
        has_rows = shape[:1] == (ROWS,)
        if has_rows and lone and array.ndim < len(shape):
            array = array[None]  # noqa: PLW2901
        if where:
            single.append(array.ndim == len(shape) - 1)
            if single[-1]:
                array = np.expand_dims(array, where[0])  # noqa: PLW2901
        if array.ndim != len(shape):
            detail = f"its shape should be {shape_text(shape)}"
            if has_rows:
                detail += f", or {shape_text(shape[1:])}"
                detail += " for a lone row in every input"
            raise at(f"#/inputs/{name}", (), detail)
        arrays[name] = array
    return arrays, lone, bool(single) and all(single)


def drop_dimensions(array: Array, tensor: Tensor, lone: bool, single: bool) -> Array:
    """An output without the dimensions that its request left out."""
    if single and DIRECTIONS in tensor.shape[:2]:
        array = array.squeeze(tensor.shape.index(DIRECTIONS))
    if lone and tensor.shape[:1] == (ROWS,):
        array = array[0]
    return np.ascontiguousarray(array) if array.ndim else array
