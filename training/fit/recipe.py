"""What decides a training run, besides network, data and seed."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self


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
    average: float = 0.0
    """Decay per step of the weights' exponential moving average, which is what is published."""
    whitening_bias_epochs: int = 3
    trained_share: float = 1.0
    """Of the images of an epoch; below 1, the hardest ones, as a small network judges them."""

    teacher_share: float = 0.0
    """Of the loss, how much is for answering as a teacher does; the rest is for the labels."""

    def with_changes(self, **changes: Any) -> Self:
        """The same recipe but for ``changes``."""
        return replace(self, **changes)

    def as_config(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)
