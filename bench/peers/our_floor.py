"""The floor under gradserve: itself, with a /classify that reads the upload, answers a constant.

Run: python -m bench.peers.our_floor --port 8000, as python -m service
"""

import os
import sys

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.server.metrics_folder import MetricsFolder

TOP = [{"label": "airplane", "index": index, "probability": 0.2} for index in range(5)]
IMAGE = {"format": "PNG", "width": 32, "height": 32}
ANSWER = {"model": "cifar-improved", "version": 1, "results": [{"top": TOP, "image": IMAGE}]}


def main() -> int:
    """Serve with every part of the service, but no decoding and no model."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    folder = MetricsFolder()
    if folder.path is not None:  # before what counts is imported
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.path)
    try:
        from service import command
        from service.api import classify
        from service.settings import Settings
        from service.web.direct import direct
        from service.web.openapi import json_response
        from service.web.state import services
        from service.web.uploads import places, read_files

        def constant(settings: Settings) -> APIRouter:
            routes = APIRouter()

            @routes.post("/classify")
            @direct
            async def answer(request: Request) -> Response:
                shared = services(request)
                shared.queue.check()
                files = await read_files(request, settings)
                with shared.queue.place(places(files)):
                    return json_response(ANSWER)

            return routes

        classify.router = constant
        return command.main(folder)
    finally:
        folder.remove()


if __name__ == "__main__":
    sys.exit(main())
