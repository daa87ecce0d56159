"""A run on disk: tensors as safetensors with JSON beside them, replaced atomically each epoch."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.errors import JobError

FILE = "run.safetensors"
FORMAT = "gradserve run 1"


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. ``train_loss`` is with augmentation, as the optimiser saw it."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_top1: float
    validation_top5: float
    seconds: float
    train_top1: float = math.nan
    """Of the batches, with augmentation; NaN in older runs."""


@dataclass(frozen=True)
class Checkpoint:
    """State after the epochs in ``history``.

    ``identity`` is all that decides the outcome (network, recipe, seed, data); ``devices`` say
    where the epochs were computed. ``tensors`` have dotted names; a finished run has only those
    of the published network.
    """

    tensors: Mapping[str, Tensor]
    history: list[Epoch]
    identity: dict[str, Any]
    devices: list[str]
    batches: int = 0
    """Batches done of the epoch in progress."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name starts with ``prefix`` and a dot, without it."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint``; the previous one stays in place until this one is whole.

    Raises JobError if it can't be written, on a full disk for example.
    """
    metadata = {
        "format": FORMAT,
        "history": json.dumps([asdict(row) for row in checkpoint.history]),
        "identity": json.dumps(checkpoint.identity),
        "devices": json.dumps(checkpoint.devices),
        "batches": json.dumps(checkpoint.batches),
    }
    kept = "; the checkpoint before it is kept" if (folder / FILE).is_file() else ""
    try:
        write_tensors(folder / FILE, checkpoint.tensors, metadata)
    except (SafetensorError, OSError) as error:
        raise JobError(
            f"{folder / FILE}: the checkpoint can't be written ({error}){kept}"
        ) from None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write ``path``, whole or not at all. Raises SafetensorError or OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            temporary,
            metadata,
        )
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(folder: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None if there is none.

    Raises JobError if it can't be read, or is of a run with another ``identity``.
    """
    saved = read(folder)
    if saved is None:
        return None
    differing = sorted(
        key
        for key in saved.identity.keys() | identity.keys()
        if saved.identity.get(key) != identity.get(key)
    )
    if differing:
        raise JobError(
            f"{folder / FILE}: this run differs in {', '.join(differing)}; resume it with the "
            "options it was started with, or start anew with --restart"
        )
    return saved


def read(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, of whatever run, or None if there is none.

    Raises JobError if it can't be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise JobError(f"{path}: this is not a checkpoint ({error}); remove it") from None
    if metadata.get("format") != FORMAT:
        raise JobError(f"{path}: this is not a checkpoint of this program; remove it")
    saved = json.loads(metadata["identity"])
    history = [Epoch(**row) for row in json.loads(metadata["history"])]
    batches = json.loads(metadata.get("batches", "0"))
    return Checkpoint(tensors, history, saved, json.loads(metadata["devices"]), batches)


def is_finished(folder: Path) -> bool:
    """Whether the checkpoint in ``folder`` is of a run that has no epoch left to do."""
    try:
        with safe_open(folder / FILE, framework="pt") as stored:
            return any(name.startswith("published.") for name in stored.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
