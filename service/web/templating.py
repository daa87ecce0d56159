"""Templates and static files of the pages."""

from pathlib import Path
from typing import Any

from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

HERE = Path(__file__).parents[1]  # service/, which holds the pages and their files
STATIC = HERE / "static"


class Assets(StaticFiles):
    """Static files, always sent whole: they are small, and errors of Range would be plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one file, whatever part of it was asked for."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(self, full_path: Any, *arguments: Any, **options: Any) -> Response:
        """The file, read before the answer begins: a lack of descriptors then still gives a 503."""
        response = super().file_response(full_path, *arguments, **options)
        if not isinstance(response, FileResponse):
            return response
        return Response(Path(full_path).read_bytes(), headers=dict(response.headers))


# Markdown is not HTML: some versions of Starlette would escape it as well.
templates = Jinja2Templates(
    env=Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(["html"])
    )
)
