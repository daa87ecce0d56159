"""A small curve artifact for the contract's tests, and publishing it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.manifest import CurveManifest
from contract.store import Artifact, Draft

MODEL = "curve-test"
FILES = {
    "value.onnx": b"a graph" * 1000,
    "checkpoint.safetensors": b"weights",
    "report.md": b"# Report\n",
    "empty.csv": b"",
}


def manifest(**changes: Any) -> CurveManifest:
    """A valid manifest with ``value`` as its one function; ``files`` is left to publish."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "version": 1,
        "created_utc": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "functions": {
            "value": {
                "inputs": [{"name": "x", "dtype": "float64", "shape": ["n"]}],
                "outputs": [{"name": "y", "dtype": "float64", "shape": ["n"]}],
                "graph": {
                    "file": "value.onnx",
                    "precision": "fp64",
                    "agreement": {
                        "maximum_absolute_error": 1e-15,
                        "absolute_tolerance": 1e-12,
                        "relative_tolerance": 1e-9,
                    },
                },
            }
        },
        "files": {},
        "parameters": {
            "total": 2,
            "multiply_adds": 1,
            "layers": [
                {
                    "name": "line",
                    "type": "Linear",
                    "output_shape": [1],
                    "formula": "1·1 weight + 1 bias = 2",
                    "count": 2,
                    "multiply_adds": 1,
                }
            ],
        },
        "data": {"name": "points", "sha256": "0" * 64, "rows": 20, "splits": {"train": 20}},
        "training": {
            "git_commit": "0" * 40,
            "config": {"lr": 0.1, "note": None},
            "seed": 1,
            "epochs": 3,
            "wall_seconds": 0.5,
            "device": "cpu (1 thread)",
            "torch_version": "2.9.0",
        },
        "metrics": {"mse": 0.01},
        "domain": [-2.0, 4.0],
    }
    return CurveManifest.model_validate(fields | changes)


def write_files(folder: Path, note: str = "") -> None:
    """The example's files; ``note`` makes one version's report differ from another's."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "report.md").write_bytes(FILES["report.md"] + note.encode())


def publish(root: Path, model: str = MODEL, note: str = "") -> Artifact:
    """Publish the example as the next version of ``model``."""
    with Draft(root, model) as draft:
        write_files(draft.folder, note)
        return draft.publish(manifest())
