"""``/explain``: which pixels of the picture speak for a class."""

import base64
from io import BytesIO

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import Response

from contract.signatures import Classifier
from service.api.pictures import (
    ClassifyQuery,
    ImageDetails,
    TopClasses,
    classify_all,
    decode_all,
    image_details,
    limits,
    query_documentation,
    top_classes,
    upload,
)
from service.runtime.dataplane import infer
from service.settings import Settings
from service.web.direct import direct
from service.web.errors import ErrorItem, Malformed, NotFound, invalid
from service.web.openapi import json_response, problems
from service.web.query import read_query
from service.web.state import services
from service.web.uploads import places, read_files

DESCRIPTION = """The likeliest classes of one picture, and the derivative of one by each pixel. """

COLOUR = (255, 64, 0)  # of the map's overlay; its opacity is the saliency


class ExplainQuery(ClassifyQuery):
    """Which classifier, and which of its classes."""

    label: str | None = Field(
        default=None,
        max_length=200,
        description="The class to explain, by name; the likeliest one unless given",
        examples=["frog"],
    )


class Saliency(BaseModel):
    """How much each pixel, as the classifier sees it, matters to the class."""

    label: str = Field(description="The class explained", examples=["frog"])
    index: int = Field(description="Its index", examples=[6])
    probability: float = Field(description="Its probability, from 0 to 1", examples=[0.97])
    map: list[list[float]] = Field(
        description="Rows of pixels: size of the derivative of the class's score by the pixel"
    )
    png: str = Field(
        description="The map as a data URL of a PNG to lay over the picture's central square",
        examples=["data:image/png;base64,…"],
    )


class Explanation(TopClasses):
    """The classification of a picture, with its saliency map."""

    model: str = Field(description="The model that answered", examples=["cifar-improved"])
    version: int = Field(description="Its version", examples=[1])
    image: ImageDetails
    seen: str = Field(
        description="The picture at the size the classifier sees, as a data URL of a PNG",
        examples=["data:image/png;base64,…"],
    )
    saliency: Saliency


def router(settings: Settings) -> APIRouter:
    """The endpoint."""
    routes = APIRouter(tags=["images"])

    @routes.post(
        "/explain",
        summary="Show which pixels of a picture speak for a class",
        description=DESCRIPTION + limits(settings),
        responses={
            200: {"model": Explanation},
            **problems(400, 404, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra={**query_documentation(ExplainQuery, settings), **upload(multiple=False)},
    )
    @direct
    async def explain(request: Request) -> Response:
        """The likeliest classes of one picture, and the derivative of one by each pixel."""
        shared = services(request)
        query = read_query(request, ExplainQuery)
        model, classifier = shared.registry.classifier(query.model or None)
        if classifier.saliency is None or classifier.label is None:
            raise NotFound("That model was published without a saliency function")
        wanted = None if query.label is None else _index(query.label, classifier)
        shared.queue.check()
        files = await read_files(request, settings)
        if len(files) > 1:
            raise Malformed("Send one image; /classify takes several")
        with shared.queue.place(places(files)):
            (picture,) = await decode_all(files, classifier, shared)
            ((row, familiar),) = await classify_all([picture], model, classifier, shared.queue)
            index = int(np.argmax(row)) if wanted is None else wanted
            inputs = {
                classifier.image: picture.pixels[None],
                classifier.label: np.array([index]),
            }
            found = await infer(model, inputs, [classifier.saliency], shared.queue)
        (saliency,) = found[classifier.saliency]
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                **top_classes(row, familiar, classifier, query.top_k),
                "image": image_details(picture),
                "seen": png_url(picture.pixels),
                "saliency": {
                    "label": classifier.classes[index],
                    "index": index,
                    "probability": row[index],
                    "map": saliency,
                    "png": overlay(saliency),
                },
            }
        )

    return routes


def overlay(saliency: NDArray[np.float32]) -> str:
    """A one-colour PNG as a data URL, most opaque where ``saliency`` [row, column] is largest."""
    size = np.abs(saliency)
    peak = float(size.max())
    pixels = np.empty((*saliency.shape, 4), np.uint8)
    pixels[..., :3] = COLOUR
    pixels[..., 3] = 0 if peak == 0 else size / peak * 255
    return png_url(pixels)


def png_url(pixels: NDArray[np.uint8]) -> str:
    """A PNG of ``pixels``, RGB or RGBA [row, column, channel], as a data URL."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _index(label: str, classifier: Classifier) -> int:
    if label not in classifier.classes:
        names = ", ".join(classifier.classes[:20])
        item = ErrorItem(detail=f"Not a class of this model; they are: {names}", parameter="label")
        raise invalid(item)
    return classifier.classes.index(label)
