"""What ``/classify`` and ``/explain`` share: the query, decoding, and parts of the answer."""

import asyncio
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract import pictures as imaging
from contract.errors import PictureError
from contract.pictures import Header, Picture
from contract.signatures import Classifier
from service.runtime.cost import PHOTO_SECONDS, picture_cost
from service.runtime.dataplane import infer
from service.runtime.loader import Model
from service.runtime.queue import Queue
from service.runtime.room import Room
from service.settings import Settings
from service.web.errors import ErrorItem, Invalid, as_problem, from_query
from service.web.uploads import FIELD, File

# Decoding a thumbnail takes less than a tenth of a millisecond, too little to queue for; a picture
# of moderate size takes a few, and waits for its turn; a photo is decoded in a thread.
THUMBNAIL_PIXELS = 10_000
TURN_PIXELS = 160_000
# Pictures of one request that are worked on before others get their turn.
TURN = 8


class ClassifyQuery(BaseModel):
    """Which classifier, and how much of its answer."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        default="cifar-improved",
        max_length=64,
        description="Name of a classifier; /models lists them",
        examples=["cifar-improved"],
    )
    top_k: int = Field(
        default=5, ge=1, le=1000, description="Number of likeliest classes to give", examples=[5]
    )


class Label(BaseModel):
    """A class and how likely it is."""

    label: str = Field(description="Name of the class", examples=["frog"])
    index: int = Field(description="Index of the class in the model's output", examples=[6])
    probability: float = Field(description="From 0 to 1; all classes add up to 1", examples=[0.97])


class ImageFacts(BaseModel):
    """What the file was."""

    format: str = Field(description="Format by content", examples=["PNG"])
    width: int = Field(description="Width as displayed, in pixels", examples=[32])
    height: int = Field(description="Height as displayed, in pixels", examples=[32])


def upload(multiple: bool) -> dict[str, Any]:
    """OpenAPI of an upload: files in a form, or one image as the body."""
    file = {"type": "string", "format": "binary", "description": "An image file"}
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {
            FIELD: {"type": "array", "items": file, "minItems": 1} if multiple else file
        },
    }
    raw = {"schema": {"type": "string", "format": "binary"}}
    kinds = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
    content = {"multipart/form-data": {"schema": form}, **dict.fromkeys(kinds, raw)}
    return {"requestBody": {"required": True, "content": content}}


Query = TypeVar("Query", bound=BaseModel)


def read_query(request: Request, kind: type[Query]) -> Query:
    """The query parameters as ``kind``. Raises Invalid."""
    text = request.scope["query_string"].decode("latin-1")
    if not text:
        return kind()
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise Invalid("The query has too many parameters") from None
    try:
        return kind.model_validate_strings(dict(pairs))
    except ValidationError as error:
        raise from_query(error) from None


def top(row: NDArray[np.float32], classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The ``count`` likeliest classes of a row of probabilities."""
    order = np.argsort(-row, kind="stable")[:count].tolist()
    values = row.tolist()
    return [{"label": classes[i], "index": i, "probability": values[i]} for i in order]


def facts(picture: Picture) -> dict[str, Any]:
    """What the file was, for the answer."""
    return {"format": picture.format, "width": picture.width, "height": picture.height}


async def decode_all(
    files: list[File], settings: Settings, side: int, queue: Queue, room: Room
) -> list[Picture]:
    """Decode every file; a large one in a thread. Raises TooLarge, WrongType or Malformed."""
    pictures = []
    for index, content in enumerate(files):
        try:
            if imaging.opens_whole(content):
                read = await queue.do(_read, content, settings, side, TURN_PIXELS)
            else:
                read = _read(content, settings, side, THUMBNAIL_PIXELS)
                if isinstance(read, Header) and read.pixels <= TURN_PIXELS:
                    read = await queue.do(imaging.decode, read, side)
            if isinstance(read, Header):
                cost = picture_cost(read)
                lane = room.large_pictures if cost.seconds > PHOTO_SECONDS else room.photos
                if index == 0:
                    lane.check()
                read = await lane.in_thread(cost, imaging.decode, read, side)
        except PictureError as error:
            problem = as_problem(error)
            if len(files) > 1:
                problem.errors = [ErrorItem(detail=problem.detail, pointer=f"#/{FIELD}/{index}")]
            raise problem from None
        pictures.append(read)
        if index % TURN == TURN - 1:
            await asyncio.sleep(0)
    return pictures


def _read(content: File, settings: Settings, side: int, at_most: int) -> Picture | Header:
    """The file, decoded if it has ``at_most`` so many pixels, else only opened.

    Whatever memory that takes is free again before the next file is read, which then finds it in
    the caches.
    """
    header = imaging.open_image(content, settings.max_pixels, settings.max_side)
    return imaging.decode(header, side) if header.pixels <= at_most else header


async def classify_all(
    pictures: list[Picture], model: Model, classifier: Classifier, queue: Queue
) -> NDArray[np.float32]:
    """Probabilities [n, classes] of n pictures."""
    images = np.stack([picture.pixels for picture in pictures])
    inputs = {classifier.image: images}
    found = await infer(model, inputs, [classifier.probabilities], queue)
    return found[classifier.probabilities]
