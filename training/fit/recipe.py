"""Hyperparameters: what determines a training run, besides network, data and seed."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

FEW_IMAGES = 5000
LEAST_STEPS = 300


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one run. Learning rates are those at the peak of the schedule."""

    epochs: int
    batch: int
    """Images of one step."""
    optimizer: Literal["adamw", "muon"]
    lr: float
    """Of AdamW for all parameters, or of Muon for the convolution filters."""
    weight_decay: float = 0.0
    """AdamW's, decoupled; beside Muon: the share of biases and head lost per step at the peak."""
    momentum: float = 0.6
    """Muon's, Nesterov."""
    sgd_lr: float = 0.0
    """Beside Muon: of Nesterov SGD for BatchNorm and whitening biases, on the mean loss."""
    head_lr: float = 0.0
    """Beside Muon: of Nesterov SGD for the head, on the mean loss."""
    warmup: float = 0.0
    """Share of all steps."""
    label_smoothing: float = 0.0
    flip: bool = True
    translate: int = 0
    """Pixels each way."""
    cutout: int = 0
    """Side of the blanked square, pixels."""
    cutmix: float = 0.0
    """Share of the batches in which each image holds a rectangle of another one."""
    average: float = 0.0
    """Decay per step of the weights' exponential moving average, which is what is published."""
    whitening_bias_epochs: int = 3
    trained_share: float = 1.0
    """Share of an epoch's images that are trained on; below 1, the hardest, by a small network."""

    teacher_share: float = 0.0
    """Weight in the loss of the teacher's answers; the rest is the labels'."""
    teacher_copies: int = 0
    """The teacher is asked about so many augmented copies of every image, which later epochs repeat
    with its kept answers; 0: about new ones in every epoch."""

    balanced: bool = False
    """Every class equally often in an epoch, however many images it has."""
    head_epochs: int = 0
    """First epochs of a pretrained network in which only its head is trained."""

    def for_images(self, rows: int, side: int) -> Self:
        """For ``rows`` training images of ``side`` × ``side``; the recipes are for 32 × 32.

        Shifts and blanked squares scale with the picture. With few images batches are smaller, so
        that an epoch has at least eight, learning rates on the mean loss are scaled in proportion,
        and there are more epochs, for at least ``LEAST_STEPS`` steps in all.
        """
        factor = max(1, side // 32)
        recipe = self.with_changes(translate=self.translate * factor, cutout=self.cutout * factor)
        if rows >= FEW_IMAGES:
            return recipe
        batch = max(min(self.batch, 16), min(self.batch, rows // 8))
        ratio = batch / self.batch if self.optimizer == "muon" else 1.0
        steps = max(1, rows // batch)
        return recipe.with_changes(
            batch=batch,
            sgd_lr=self.sgd_lr * ratio,
            head_lr=self.head_lr * ratio,
            epochs=max(self.epochs, -(-LEAST_STEPS // steps)),
            trained_share=1.0,
        )

    def with_changes(self, **changes: Any) -> Self:
        """The same recipe but for ``changes``."""
        return replace(self, **changes)

    def as_config(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)
