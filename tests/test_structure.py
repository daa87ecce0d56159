"""Imports run one way only: the rooms, top to bottom, each with what it may import."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

ROW = re.compile(r"^\| `([a-z.]+)` \|[^|]*\|(.*)\|$", re.MULTILINE)


def read_rooms() -> dict[str, set[str]]:
    """Each room with the rooms that it may import besides itself, as docs/architecture.md says."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    section = text.partition("## The rooms")[2].partition("## Four flows")[0]
    return {room: set(re.findall(r"`([a-z.]+)`", may)) for room, may in ROW.findall(section)}


MAY_IMPORT = read_rooms()
NOT_IN = {
    "contract": {"torch", "fastapi", "starlette"},
    "service.runtime": {"torch", "fastapi", "starlette", "prometheus_client"},
    "service.web": {"torch"},
    "service.api": {"torch"},
    "service.server": {"torch", "fastapi"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    """The room in which a module of the project lives; None for others' modules."""
    return next((room for room in MAY_IMPORT if (module + ".").startswith(room + ".")), None)


def test_imports_run_downwards() -> None:
    wrong = []
    for room, allowed in MAY_IMPORT.items():
        place = ROOT / room.replace(".", "/")
        for path in (
            [place.with_suffix(".py")]
            if place.with_suffix(".py").is_file()
            else sorted(place.rglob("*.py"))
        ):
            for module in imports(path):
                top = module.partition(".")[0]
                target = room_of(module)
                inside = top in {"contract", "service", "training"}
                if (inside and target not in allowed | {room}) or top in NOT_IN.get(room, ()):
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_the_rooms_in_the_document_are_the_folders() -> None:
    folders = {f"service.{path.parent.name}" for path in (ROOT / "service").glob("*/__init__.py")}
    named = {room for room in MAY_IMPORT if (ROOT / room.replace(".", "/")).is_dir()}
    assert named == folders | {"contract", "training"}
    assert all(target in MAY_IMPORT for may in MAY_IMPORT.values() for target in may)


def test_no_room_imports_in_a_circle() -> None:
    left = dict(MAY_IMPORT)
    while left:
        bottom = {room for room, may in left.items() if not may & left.keys()}
        assert bottom, f"a circle among {sorted(left)}"
        left = {room: may for room, may in left.items() if room not in bottom}
