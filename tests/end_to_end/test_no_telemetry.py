"""ONNX Runtime keeps no identifier of this machine and sends nothing anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["service", "training"])
def test_importing_the_package_turns_telemetry_off(tmp_path: Path, package: str) -> None:
    """Telemetry begins with a device id and a database in the home folder: there is neither."""
    hidden = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    program = f"import {package}, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path)},
    )
    assert list(tmp_path.iterdir()) == []
