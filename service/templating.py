"""Templates and static files of the pages."""

from pathlib import Path

from fastapi.templating import Jinja2Templates

HERE = Path(__file__).parent
STATIC = HERE / "static"

templates = Jinja2Templates(HERE / "templates")
