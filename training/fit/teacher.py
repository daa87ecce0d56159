"""Learning from a larger network: the small one is trained to answer as the teacher does.

Both see the same augmented pictures ("consistent teaching": Beyer et al., "Knowledge distillation:
a good teacher is patient and consistent", arXiv 2106.05237).
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from training.errors import JobError
from training.fit import checkpoint
from training.networks.classifier import make_classifier

# Softer answers say more about the unlikely classes (Hinton et al., arXiv 1503.02531).
TEMPERATURE = 2.0
SAME = ("data", "split_seed", "validation", "side", "resize")


def distillation_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Kullback-Leibler divergence of softened ``logits`` from ``answers``, both [n, classes].

    The mean over rows, times the squared temperature, which keeps gradients at the size of those
    of cross-entropy.
    """
    own = functional.log_softmax(logits / TEMPERATURE, 1)
    theirs = functional.log_softmax(answers / TEMPERATURE, 1)
    divergence = functional.kl_div(own, theirs, reduction="batchmean", log_target=True)
    return divergence * TEMPERATURE**2


class Teachers(nn.Module):
    """Several networks; their answer is the mean of their logits, float32 [n, classes]."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised float32 ``images`` [n, 3, h, w]."""
        return torch.stack([network(images).float() for network in self.networks]).mean(0)


class KeptAnswers:
    """A teacher's answers to the batches of an epoch, kept on disk for the epochs that repeat it.

    ``identity`` is the run's: the answers of another one are never read. Without a ``folder`` they
    are kept in memory.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any], part: str) -> None:
        digest = hashlib.sha256(json.dumps([identity, part], sort_keys=True).encode())
        self._folder = folder / "teacher" if folder is not None else None
        self._prefix = digest.hexdigest()[:16]
        self._answers: dict[int, dict[str, Tensor]] = {}

    def _path(self, copy: int) -> Path | None:
        return self._folder and self._folder / f"{self._prefix}-{copy}.safetensors"

    def get(self, copy: int, batch: int) -> Tensor | None:
        """Logits float32 [n, classes] of a batch; None if it has not been answered."""
        if copy not in self._answers:
            path = self._path(copy)
            self._answers[copy] = {}
            if path is not None and path.is_file():
                with suppress(SafetensorError, OSError):  # damaged: the teacher is asked again
                    self._answers[copy] = safetensors.torch.load_file(path)
        found = self._answers[copy].get(str(batch))
        return None if found is None else found.float()

    def put(self, copy: int, batch: int, answers: Tensor, batches: int) -> None:
        """Keep the logits of a batch, as float16; once ``batches`` are there, on disk."""
        kept = self._answers.setdefault(copy, {})
        kept[str(batch)] = answers.half().cpu()
        path = self._path(copy)
        if path is None or len(kept) < batches:
            return
        # They only save time: on a full disk training goes on, and its checkpoint says so.
        with suppress(SafetensorError, OSError):
            checkpoint.write_tensors(path, kept)


def load_teachers(folders: Sequence[Path], classes: int, identity: dict[str, Any]) -> nn.Module:
    """The networks of the finished runs in ``folders`` as one. Raises JobError as load_teacher."""
    networks = [load_teacher(folder, classes, identity) for folder in folders]
    return networks[0] if len(networks) == 1 else Teachers(networks)


def load_teacher(folder: Path, classes: int, identity: dict[str, Any]) -> nn.Module:
    """The network of a finished run in ``folder``, in eval mode, without gradients.

    Raises JobError if there is none, or if it was trained on other images than ``identity`` says:
    it would have seen the validation images.
    """
    saved = checkpoint.read(folder)
    if saved is None or not saved.part("published"):
        raise JobError(f"--teacher {folder}: there is no finished run; train one with --no-publish")
    differing = [key for key in SAME if saved.identity.get(key) != identity.get(key)]
    if differing:
        raise JobError(f"--teacher {folder}: that run differs in {', '.join(differing)}")
    preset = saved.identity.get("preset", "release")
    side = saved.identity.get("side", 32)
    network = make_classifier(saved.identity["network"], preset, classes, side)
    network.load_state_dict(saved.part("published"))
    return network.eval().requires_grad_(False)


def describe(folders: Sequence[Path]) -> str:
    """Identity of the teachers' runs, as part of the identity of the run that learns from them."""
    saved = [checkpoint.read(folder) for folder in folders]
    return " + ".join(str(sorted(run.identity.items())) for run in saved if run is not None)


def provenance(folder: Path) -> dict[str, Any]:
    """What the manifest of a network tells of one of its teachers: a finished run in ``folder``."""
    run = checkpoint.read(folder)
    if run is None:
        raise JobError(f"--teacher {folder}: there is no finished run")
    return {
        "network": run.identity["network"],
        "epochs": len(run.history),
        "wall_seconds": sum(row.seconds for row in run.history),
        "device": ", ".join(run.devices),
        "validation_top1": run.history[-1].validation_top1,
    }
