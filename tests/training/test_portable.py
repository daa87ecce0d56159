"""Training where the system lacks what only Linux has, and a C++ compiler."""

import os
import subprocess
import sys
from pathlib import Path

from tests.server_process import ROOT
from tests.without_parts import WITHOUT_PARTS

CODE = f"""{WITHOUT_PARTS}
import runpy
runpy.run_module("training", run_name="__main__")
"""


def test_a_job_publishes_without_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "sigmoid-conv", "--artifacts", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sigmoid-conv" / "1" / "manifest.json").is_file()
