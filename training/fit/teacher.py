"""Learning from a larger network: the small one is trained to answer as the teacher does.

Both see the same augmented pictures ("consistent teaching": Beyer et al., "Knowledge distillation:
a good teacher is patient and consistent", arXiv 2106.05237).
"""

from pathlib import Path
from typing import Any

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


def describe(folder: Path) -> str:
    """Identity of the teacher's run, as part of the identity of the run that learns from it."""
    saved = checkpoint.read(folder)
    return "" if saved is None else str(sorted(saved.identity.items()))
