"""What the code may not do, read from the code itself: unpickle, or import across the rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each can run code that lies in the data it reads.
UNPICKLERS = {
    "pickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
UNPICKLING_CALLS = {"torch.load", "torch.jit.load", "torch.package", "pandas.read_pickle"}
# What makes a call safe: torch.load then builds tensors and plain containers, and refuses the rest.
SAFE_WITH = {"torch.load": ("weights_only", True)}
PYTORCH = {"torch", "torchvision", "onnx", "onnxscript"}


def sources(*rooms: str) -> list[Path]:
    """The Python files of some rooms."""
    found = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert found
    return found


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it, each with the packages that it lies in."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            parts = module.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("contract", {"service", "training", "fastapi", "starlette"} | PYTORCH),
        ("service", {"training"} | PYTORCH),
        ("training", {"service", "fastapi", "starlette"}),
    ],
)
def test_the_rooms_stay_apart(room: str, forbidden: set[str]) -> None:
    for path in sources(room):
        assert not forbidden & set(imported(path)), path


def test_nothing_is_unpickled() -> None:
    for path in sources("contract", "service", "training"):
        # "from torch import load" would hide the call.
        assert not (UNPICKLERS | UNPICKLING_CALLS) & set(imported(path)), path
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {
                    k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
                }
                name, value = SAFE_WITH.get(called, ("", None))
                safe = name in given and given[name] is value
                assert called not in UNPICKLING_CALLS or safe, f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    unsafe = keyword.arg == "allow_pickle" and not (
                        isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                    )
                    assert not unsafe, f"{path}:{node.lineno}"


def test_no_endpoint_runs_code_or_opens_an_address() -> None:
    forbidden = {"subprocess", "socket", "urllib.request", "http.client", "httpx", "requests"}
    for path in sources("service/api"):
        assert not forbidden & set(imported(path)), path
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {"eval", "exec", "os.system", "open"}, path


def test_published_artifacts_hold_nothing_that_runs() -> None:
    for path in (ROOT / "artifacts").rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert path.suffix in {".json", ".onnx", ".safetensors", ".npz", ".csv", ".md", ".png"}
            assert not path.stat().st_mode & 0o111, f"{path} is executable"
