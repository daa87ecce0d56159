"""Imports run one way only: the rooms, top to bottom, each with what it may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Each room with the rooms of the project that it may import, besides itself.
MAY_IMPORT = {
    "contract": set(),
    "training": {"contract"},
    "service.settings": set(),
    "service.lifecycle": set(),
    "service.runtime": {"contract", "service.settings"},
    "service.web": {"contract", "service.runtime", "service.settings", "service.lifecycle"},
    "service.api": {"contract", "service.runtime", "service.web", "service.settings"},
    "service.server": {
        "service.web",
        "service.runtime",
        "service.settings",
        "service.lifecycle",
    },
}
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
