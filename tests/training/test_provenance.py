"""Where a checkpoint says it comes from."""

import subprocess
from pathlib import Path

import pytest
import torch

from training.provenance import device_text, git_commit, training_record


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A repository with a committed ``training`` package in it."""
    for name in ("training", "contract"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "training", "contract")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path / "training"


def test_a_clean_tree_gives_the_commit(package: Path) -> None:
    assert git_commit(package) == git(package, "rev-parse", "HEAD")
    (package.parent / "notes.txt").touch()  # outside the code that trains
    assert git_commit(package) == git(package, "rev-parse", "HEAD")


@pytest.mark.parametrize("changed", ["training/__init__.py", "contract/new.py"])
def test_a_changed_tree_is_dirty(package: Path, changed: str) -> None:
    (package.parent / changed).write_text("changed = True\n")
    assert git_commit(package) == git(package, "rev-parse", "HEAD") + "-dirty"


def test_somebody_elses_repository_is_not_ours(package: Path) -> None:
    installed = package.parent / "venv" / "training"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert git_commit(installed) == "unknown"


def test_no_git_at_all(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit(package) == "unknown"


def test_device_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device_text("cpu") == "cpu (1 thread)"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert device_text("cpu") == "cpu (8 threads)"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    assert device_text("cuda") == "cuda (NVIDIA H100)"


def test_the_record() -> None:
    record = training_record({"width": 3}, seed=1, epochs=2, wall_seconds=1.23456)
    assert (record.seed, record.epochs, record.wall_seconds) == (1, 2, 1.235)
    assert record.config == {"width": 3}
    assert record.torch_version == torch.__version__
