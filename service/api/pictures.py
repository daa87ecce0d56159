"""What ``/classify`` and ``/explain`` share: the query, decoding, and parts of the answer."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract import pictures as imaging
from contract.errors import PictureError
from contract.pictures import Header, Picture
from contract.signatures import Classifier
from service.runtime.cost import PHOTO_SECONDS, Cost, picture_cost
from service.runtime.dataplane import infer
from service.runtime.loader import Model
from service.runtime.queue import LONG_SECONDS, TURN_SECONDS, Queue
from service.runtime.resources import WorkPool, small_work_reserve
from service.settings import Settings
from service.web.errors import ErrorItem, Problem, TooLarge, as_problem
from service.web.metrics import count_image
from service.web.openapi import query_parameters
from service.web.request_record import Stage
from service.web.state import Services
from service.web.uploads import FIELD, File

# Decoding a thumbnail takes less than a tenth of a millisecond, too little to queue for; a picture
# of moderate size takes a few, and waits for its turn; a photo is decoded in a thread, and one that
# takes longer than ``PHOTO_SECONDS`` in another, which nothing smaller waits for.
# Neither is one whose file has more than its pixels need: bytes without end, a profile.
THUMBNAIL_PIXELS = 10_000
THUMBNAIL_SECONDS = 0.001
TURN_PIXELS = 160_000


class ClassifyQuery(BaseModel):
    """Which classifier, and how much of its answer."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        default="",
        max_length=64,
        description="Name of a classifier; /models lists them, and says which answers by default",
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


class TopClasses(BaseModel):
    """What a classifier makes of a picture."""

    top: list[Label] = Field(description="Likeliest classes, likeliest first")
    familiar: float | None = Field(
        default=None,
        description="How much the picture is like those that the model was trained on: the share "
        "of its validation pictures that are less so. At 0.03 or less, don't rely on the classes. "
        "Absent where the model doesn't tell",
        examples=[0.42],
    )


class ImageDetails(BaseModel):
    """What the file was."""

    format: str = Field(description="Format by content", examples=["PNG"])
    width: int = Field(description="Width as displayed, in pixels", examples=[32])
    height: int = Field(description="Height as displayed, in pixels", examples=[32])


def query_documentation(query: type[ClassifyQuery], settings: Settings) -> dict[str, Any]:
    """OpenAPI of a query, with the default classifier that is set.

    It is said in words: generated clients send what a schema calls the default, which would keep
    the only classifier that there is from answering.
    """
    documentation = query_parameters(query)
    for parameter in documentation["parameters"]:
        if parameter["name"] == "model":
            del parameter["schema"]["default"]
            parameter["description"] += (
                f": {settings.default_classifier}, unless another is the only one"
            )
    return documentation


def limits(settings: Settings) -> str:
    """How large a picture may be, for the documentation."""
    kinds = imaging.largest(
        settings.max_memory_bytes - small_work_reserve(settings.max_memory_bytes)
    )
    most = settings.max_pixels / 1e6
    less = [f"{kind} {int(size)}" for kind, size in kinds.items() if size < most]
    text = f"A picture may have {most:g} megapixels"
    if less:
        text += f"; where decoding takes more memory, less: {', '.join(less)}"
    return f"{text}. All of one request together: as long as {settings.max_request_megapixels} \
megapixels of PNG take."


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


def top(row: NDArray[np.float32], classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """The ``count`` likeliest classes of a row of probabilities."""
    order = np.argsort(-row, kind="stable")[:count].tolist()
    values = row.tolist()
    return [{"label": classes[i], "index": i, "probability": values[i]} for i in order]


def image_details(picture: Picture) -> dict[str, Any]:
    """What the file was, for the answer."""
    return {"format": picture.format, "width": picture.width, "height": picture.height}


class Decoder:
    """The pictures of one request: opened, weighed and admitted, then decoded one by one.

    Raises, for whichever file is to blame, TooLarge, WrongType or Malformed; QueueFull if decoding
    would begin too late.
    """

    def __init__(
        self, files: list[File], classifier: Classifier, shared: Services, where: str = ""
    ) -> None:
        self.files = files
        self.where = where or (f"#/{FIELD}" if len(files) > 1 else "")
        self.side = classifier.side
        self.resize = classifier.resize
        self.settings = shared.settings
        self.queue = shared.queue
        self.resources = shared.resources
        self.headers: list[Header] = []
        self._turn_ends = time.perf_counter() + TURN_SECONDS

    async def open(self) -> None:
        """Read the heads of all files, and see whether the work on them would begin in time."""
        settings = self.settings
        most = self.resources.memory.most - sum(map(len, self.files))  # the body is counted already
        for index, content in enumerate(self.files):
            with Stage("decode"), self._naming_file(index):
                self.headers.append(
                    imaging.open_image(
                        content, settings.max_pixels, settings.max_side, most, self.side
                    )
                )
            await self._yield_to_event_loop()
        together = sum(header.megapixels(self.side) for header in self.headers)
        if together > settings.max_request_megapixels:
            raise TooLarge(
                f"Decoding takes as long as a PNG of {together:.0f} megapixels, over the limit of "
                f"{settings.max_request_megapixels}; send smaller images, or fewer in a request"
            )
        for pool in {pool for pool, _ in map(self._pool, self.headers) if pool is not None}:
            pool.check()

    async def decode(self) -> list[Picture]:
        """Decode them all."""
        pictures = []
        for index, header in enumerate(self.headers):
            pool, cost = self._pool(header)
            with Stage("decode"), self._naming_file(index):
                if pool is not None:
                    picture = await pool.in_thread(
                        cost, imaging.decode, header, self.side, self.resize
                    )
                elif self._is_thumbnail(header, cost):
                    picture = imaging.decode(header, self.side, self.resize)
                else:
                    picture = await self.queue.do(imaging.decode, header, self.side, self.resize)
            pictures.append(picture)
            count_image(picture.format)
            await self._yield_to_event_loop()
        return pictures

    def _pool(self, header: Header) -> tuple[WorkPool | None, Cost]:
        """Where a picture is decoded: None is the event loop."""
        cost = picture_cost(header, self.side)
        if header.pixels <= TURN_PIXELS and cost.seconds <= LONG_SECONDS:
            return None, cost
        large = cost.seconds > PHOTO_SECONDS
        return (self.resources.large_pictures if large else self.resources.photos), cost

    @staticmethod
    def _is_thumbnail(header: Header, cost: Cost) -> bool:
        small = header.pixels <= THUMBNAIL_PIXELS and cost.seconds <= THUMBNAIL_SECONDS
        return small and header.image is not None

    async def _yield_to_event_loop(self) -> None:
        """Let the event loop go on if this request has held it for a turn."""
        if time.perf_counter() > self._turn_ends:
            await asyncio.sleep(0)
            self._turn_ends = time.perf_counter() + TURN_SECONDS

    @contextmanager
    def _naming_file(self, index: int) -> Iterator[None]:
        """Make an error of a file one of the request, and say which file it was."""
        try:
            yield
        except PictureError as error:
            # Not kept in a variable here: with its traceback it would be a cycle, and the file
            # would stay in memory until the garbage collector runs.
            raise self._problem_of(index, error) from None

    def _problem_of(self, index: int, error: PictureError) -> Problem:
        problem = as_problem(error)
        if self.where:
            place = f"{self.where}/{index}"
            problem.errors = [ErrorItem(detail=problem.detail, pointer=place)]
        return problem


async def decode_all(
    files: list[File], classifier: Classifier, shared: Services, where: str = ""
) -> list[Picture]:
    """Decode every file to what ``classifier`` takes, as ``Decoder`` does."""
    decoder = Decoder(files, classifier, shared, where)
    await decoder.open()
    return await decoder.decode()


async def classify_all(
    pictures: list[Picture], model: Model, classifier: Classifier, queue: Queue
) -> list[tuple[NDArray[np.float32], float | None]]:
    """For each picture its probabilities [classes] and, where the model tells, how familiar."""
    images = np.stack([picture.pixels for picture in pictures])
    wanted = [name for name in (classifier.probabilities, classifier.familiar) if name is not None]
    found = await infer(model, {classifier.image: images}, wanted, queue)
    rows = found[classifier.probabilities]
    shares = [None] * len(rows)
    if classifier.familiar is not None:
        shares = found[classifier.familiar].tolist()
    return list(zip(rows, shares, strict=True))


def top_classes(
    row: NDArray[np.float32], familiar: float | None, classifier: Classifier, count: int
) -> dict[str, Any]:
    """The ``count`` likeliest classes of a picture, and how familiar it is."""
    likeliest = {"top": top(row, classifier.classes, count)}
    return likeliest if familiar is None else {**likeliest, "familiar": familiar}
