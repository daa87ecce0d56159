"""``/classify``: what is in the picture."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

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
from service.settings import Settings
from service.web.direct import direct
from service.web.openapi import json_response, problems
from service.web.query import read_query
from service.web.state import services
from service.web.uploads import places, read_files

DESCRIPTION = """The likeliest classes of each picture, with calibrated probabilities.

PNG, JPEG, WebP, GIF, BMP and MPO, recognised by content; the first frame, as displayed, cropped to
its central square. """


class Classified(TopClasses):
    """The answer for one image."""

    image: ImageDetails


class Classification(BaseModel):
    """The answers, in the order of the files."""

    model: str = Field(description="The model that answered", examples=["cifar-improved"])
    version: int = Field(description="Its version", examples=[1])
    results: list[Classified]


def router(settings: Settings) -> APIRouter:
    """The image endpoints."""
    routes = APIRouter(tags=["images"])
    errors = problems(400, 404, 408, 413, 415, 422, 429, 503)

    @routes.post(
        "/classify",
        summary="Name what is in one or more pictures",
        description=DESCRIPTION + limits(settings),
        responses={200: {"model": Classification}, **errors},
        openapi_extra={**query_documentation(ClassifyQuery, settings), **upload(multiple=True)},
    )
    @direct
    async def classify(request: Request) -> Response:
        """The likeliest classes of each picture, with calibrated probabilities."""
        shared = services(request)
        query = read_query(request, ClassifyQuery)
        model, classifier = shared.registry.classifier(query.model or None)
        shared.queue.check()
        files = await read_files(request, settings)
        with shared.queue.place(places(files)):
            pictures = await decode_all(files, classifier, shared)
            found = await classify_all(pictures, model, classifier, shared.queue)
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                "results": [
                    {**top_classes(*each, classifier, query.top_k), "image": image_details(picture)}
                    for picture, each in zip(pictures, found, strict=True)
                ],
            }
        )

    return routes
