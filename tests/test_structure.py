"""Imports run one way only: the layers, top to bottom, each with what it may import."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

ROW = re.compile(r"^\| `([a-z.]+)` \|[^|]*\|(.*)\|$", re.MULTILINE)


def read_layers() -> dict[str, set[str]]:
    """Each layer with those that it may import besides itself, as docs/architecture.md says."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    section = text.partition("## The layers")[2].partition("## Four flows")[0]
    return {layer: set(re.findall(r"`([a-z.]+)`", may)) for layer, may in ROW.findall(section)}


MAY_IMPORT = read_layers()
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


def layer_of(module: str) -> str | None:
    """The layer in which a module of the project lives; None for others' modules."""
    return next((layer for layer in MAY_IMPORT if (module + ".").startswith(layer + ".")), None)


def test_imports_run_downwards() -> None:
    wrong = []
    for layer, allowed in MAY_IMPORT.items():
        place = ROOT / layer.replace(".", "/")
        for path in (
            [place.with_suffix(".py")]
            if place.with_suffix(".py").is_file()
            else sorted(place.rglob("*.py"))
        ):
            for module in imports(path):
                top = module.partition(".")[0]
                target = layer_of(module)
                inside = top in {"contract", "service", "training"}
                if (inside and target not in allowed | {layer}) or top in NOT_IN.get(layer, ()):
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_the_layers_in_the_document_are_the_folders() -> None:
    folders = {f"service.{path.parent.name}" for path in (ROOT / "service").glob("*/__init__.py")}
    named = {layer for layer in MAY_IMPORT if (ROOT / layer.replace(".", "/")).is_dir()}
    assert named == folders | {"contract", "training"}
    assert all(target in MAY_IMPORT for may in MAY_IMPORT.values() for target in may)


def test_no_layer_imports_in_a_circle() -> None:
    left = dict(MAY_IMPORT)
    while left:
        bottom = {layer for layer, may in left.items() if not may & left.keys()}
        assert bottom, f"a circle among {sorted(left)}"
        left = {layer: may for layer, may in left.items() if layer not in bottom}


def test_every_promise_names_tests_that_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    section = text.partition("## What is promised")[2].partition("## What is not promised")[0]
    promises = re.findall(r"^\*\*.*?(?=^\*\*|\Z)", section, re.MULTILINE | re.DOTALL)
    assert len(promises) > 10
    assert [promise[:60] for promise in promises if "→ `" not in promise] == []
    files = list((ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", "".join(f.read_text() for f in files), re.M))
    named = re.findall(r"`(tests/[\w/.]+)`", section)
    assert [path for path in named if not (ROOT / path).exists()] == []
    modules = set(re.findall(r"`(test_\w+\.py)`", section))
    assert modules <= {file.name for file in files}
    assert set(re.findall(r"`(test_\w+)`", section)) <= defined


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports each by its bare name, and stops where two folders have the same."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
