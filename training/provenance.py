"""Where a checkpoint came from: commit of the code, library version, device."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import JsonValue

from contract.manifest import Training

PACKAGE = Path(__file__).resolve().parent
UNKNOWN_COMMIT = "unknown"


def git_commit(package: Path = PACKAGE) -> str:
    """Commit of the training code, with ``-dirty`` if ``training`` or ``contract`` was changed.

    ``unknown`` where the code does not lie in its own git repository (an installed package, a
    container), so that the commit of some repository around it is never taken for ours.
    """
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(package, "rev-parse", "HEAD")
    if tracked is None or not commit:
        return UNKNOWN_COMMIT
    changes = _git(package, "status", "--porcelain", "--", ".", "../contract")
    return f"{commit}-dirty" if changes else commit


def device_text(device: torch.device | str) -> str:
    """The device in words: ``cpu (2 threads)``, ``cuda (NVIDIA H100)``."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads != 1 else ''})"
    return str(device)


def training_record(
    config: Mapping[str, JsonValue],
    *,
    seed: int,
    epochs: int,
    wall_seconds: float,
    device: str | None = None,
) -> Training:
    """The manifest's ``training`` part for a run that has just ended; ``device`` in words."""
    return Training(
        git_commit=git_commit(),
        config=dict(config),
        seed=seed,
        epochs=epochs,
        wall_seconds=round(wall_seconds, 3),
        device=device or device_text("cpu"),
        torch_version=torch.__version__,
    )


def _git(folder: Path, *arguments: str) -> str | None:
    """Standard output of a git command, or None if git is missing or refuses."""
    try:
        done = subprocess.run(  # noqa: S603 — fixed arguments, no shell
            ["git", *arguments],  # noqa: S607 — wherever git is installed
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
