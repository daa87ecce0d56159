"""A pretrained network of torchvision's with a new head: for few pictures, from weights on disk.

Nothing is downloaded here. torchvision's weights are files such as resnet18-f37072fd.pth, from
https://download.pytorch.org/models; those of any program that keeps the same names serve as well.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import JobError

BACKBONES = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large")
# Of ImageNet's pictures, which the weights were trained on.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Input: float [n, 3, height, width], normalised by MEAN and STD; output: logits [n, classes].

    Raises JobError if ``weights`` can't be read, or are those of another network.
    """

    def __init__(self, name: str, classes: int, weights: Path | None) -> None:
        super().__init__()
        from torchvision import models

        state = None if weights is None else read_weights(weights)
        head, outputs = "fc" if name.startswith("resnet") else "classifier.3", 1000
        if state is not None and f"{head}.weight" in state:
            outputs = len(state[f"{head}.weight"])
        self.net: Any = models.get_model(name, weights=None, num_classes=outputs)
        if state is not None:
            try:
                self.net.load_state_dict(state)
            except (RuntimeError, TypeError, AttributeError):
                raise JobError(
                    f"--weights {weights}: these are not the weights of {name}"
                ) from None
        parent, _, last = head.rpartition(".")
        owner = self.net.get_submodule(parent)
        old: Any = owner.get_submodule(last)
        setattr(owner, last, nn.Linear(old.in_features, classes))
        self.head: str = f"net.{head}."

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def train_head_only(self, only: bool) -> None:
        """Freeze everything but the head, BatchNorm's statistics included, or nothing."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not only or name.startswith(self.head))
        if only:
            self.eval()

    def early_layer(self) -> nn.Module:
        """At a quarter of the picture's size or more: it shows colours and textures."""
        layer: nn.Module = self.net.layer1 if self.head == "net.fc." else self.net.features[2]
        return layer

    def folded(self) -> "Backbone":
        """A copy in eval mode; ONNX Runtime folds its BatchNorms."""
        return copy.deepcopy(self).eval()

    def prepare(self, images: Tensor) -> None:
        """Nothing here depends on the training images."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file; nothing else in it is unpickled.

    Raises JobError.
    """
    if not path.is_file():
        raise JobError(f"--weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise JobError(f"--weights {path}: it can't be read ({str(error)[:80]})") from None
    except Exception:  # pickle's UnpicklingError, and what a damaged pickle brings about
        raise JobError(f"--weights {path}: it holds more than tensors, or is damaged") from None
    if not isinstance(state, dict):
        raise JobError(f"--weights {path}: it holds no weights by name")
    return state
