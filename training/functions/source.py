"""A user's file: ``surrogate.py:build``, imported and called."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from training.errors import JobError
from training.functions.publication import Publication

OURS = ("contract", "training", "gradserve")  # what publishing imports; `service` it does not


def load(reference: str) -> Publication:
    """The publication that ``build`` of ``file.py:build`` gives.

    The file may import what lies beside it. Raises JobError in one line for whatever is wrong.
    """
    name, colon, function = reference.rpartition(":")
    path = Path(name if colon else reference)
    function = function if colon else "build"
    if path.suffix != ".py" or not function.isidentifier():
        raise JobError(f"{reference}: give a file and its function, such as surrogate.py:build")
    if not path.is_file():
        raise JobError(f"{path}: there is no such file")
    _refuse_clashes(path)
    build = getattr(_imported(path), function, None)
    if not callable(build):
        raise JobError(f"{path} has no function {function}()")
    try:
        publication = build()
    except JobError:
        raise
    except (Exception, SystemExit) as error:  # it is the user's own
        raise JobError(f"{path}: {function}() fails: {type(error).__name__}: {error}") from error
    if not isinstance(publication, Publication):
        raise JobError(
            f"{path}: {function}() should return a gradserve.Publication, not "
            f"{type(publication).__name__}"
        )
    return publication


def _imported(path: Path) -> object:
    # What publishing needs is in sys.modules by now, so that the user's folder may come first.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise JobError(f"{path}: Python can't import it")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise JobError(
            f"{path} calls sys.exit({error}) when it is imported; put that under "
            'if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise JobError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module


def _refuse_clashes(path: Path) -> None:
    """A folder called like one of ours is in nobody's way unless the file imports it."""
    for name in OURS:
        beside = [path.parent / name, path.parent / f"{name}.py"]
        clash = next((each for each in beside if each.exists()), None)
        own = (path.parent / name).resolve() == Path(__file__).resolve().parents[2] / name
        if clash is not None and not own and name in _imports(path):
            raise JobError(
                f"{path} imports {name}, which gradserve itself has a package called; rename "
                f"{clash} to publish from here"
            )


def _imports(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))  # bytes: it may name its encoding
    except (SyntaxError, ValueError) as error:
        raise JobError(f"{path} is not Python: {error}") from None
    return set(_top_names(tree))


def _top_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            top = node.module.partition(".")[0]
            # `from gradserve import Publication` is what every such file has.
            if top != "gradserve" or not {alias.name for alias in node.names} <= _PUBLIC:
                yield top


_PUBLIC = {"Publication", "publish", "create_app"}
