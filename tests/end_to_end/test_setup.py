"""What a clone is set up by: the Makefile's checks, and locks that fit pyproject.toml."""

import hashlib
import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    """Package → version of a lock file; every line is one exact pin."""
    lines = (ROOT / "locks" / f"{name}.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize(
    ("lock", "extras"), [("service", []), ("dev", ["training", "test"])], ids=["service", "dev"]
)
def test_a_lock_has_what_pyproject_asks_for(lock: str, extras: list[str]) -> None:
    locked = pins(lock)
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert name in locked, f"run make lock: {name} is new"
            assert requirement.specifier.contains(locked[name]), f"run make lock: {requirement}"


def test_both_locks_pin_the_same_versions() -> None:
    service, dev = pins("service"), pins("dev")
    assert {name: dev.get(name) for name in service} == service


def test_the_service_needs_neither_pytorch_nor_onnx() -> None:
    assert not pins("service").keys() & {"torch", "torchvision", "onnx", "onnxscript", "matplotlib"}


def test_no_lock_names_a_build_that_only_one_index_has() -> None:
    for lock in ("service", "dev"):
        assert not [version for version in pins(lock).values() if "+" in version]


@pytest.mark.parametrize("target", ["serve", "test", "train", "lint"])
def test_an_old_python_is_refused_in_words(tmp_path: Path, target: str) -> None:
    python = tmp_path / "python3.9"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 || exit 1\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", target, f"PYTHON={python}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "gradserve needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_clone_on_windows_has_the_bytes_that_were_committed(tmp_path: Path) -> None:
    """Git for Windows changes line ends by default; artifacts would then fail their checksums."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "-c", "core.autocrlf=true", "clone", "-q", "--depth=1", f"file://{ROOT}", clone],
        check=True,
        timeout=120,
    )
    manifests = sorted((clone / "artifacts").glob("*/*/manifest.json"))
    assert manifests
    for manifest in manifests:
        for name, file in json.loads(manifest.read_text("utf-8"))["files"].items():
            content = (manifest.parent / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"], f"{manifest}: {name}"
    for script in (".ci/run", "Makefile", "Dockerfile", "training/data/HW1-1.csv"):
        assert (clone / script).read_bytes() == (ROOT / script).read_bytes(), script
