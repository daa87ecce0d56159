"""The smallest classifier of every family in torchvision, random weights, at its smallest side."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gradserve import Publication
from training.functions import own_classifier
from training.functions.exported import export_plan
from training.functions.function_spec import constant_weights
from training.functions.plans import plan

# Family's smallest: name of the constructor, and the smallest side from 64 up that it takes.
CLASSIFIERS = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vit_b_16": 64,
    "wide_resnet50_2": 64,
}
CLASSES = 10
ROWS = 64  # of networks with ReLU most random pictures are at a kink
Say = Callable[..., None]


def classifier(name: str) -> nn.Module:
    """The network with random weights, in eval mode."""
    import torchvision

    torch.manual_seed(0)
    options: dict[str, object] = {"weights": None, "num_classes": CLASSES}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    if name == "vit_b_16":
        options["image_size"] = CLASSIFIERS[name]
    built: nn.Module = getattr(torchvision.models, name)(**options)
    for layer in built.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.02)  # a head of zeros makes every derivative zero
    return built.eval()


def attempt_classifier(name: str, say: Say) -> None:
    """Probabilities, saliency, and the gradient of the logits by the input."""
    side = CLASSIFIERS[name]
    network = classifier(name)
    names = [f"class {index}" for index in range(CLASSES)]
    served = Publication(
        copy.deepcopy(network), classes=names, image_side=side, derivatives=("saliency",)
    )
    asked = Publication(
        network, examples={"x": torch.rand(ROWS, 3, side, side)}, outputs=("logits",)
    )
    with tempfile.TemporaryDirectory() as folder, constant_weights(network):
        plans, examples = own_classifier.plans(served)
        try:
            from training.functions.function_spec import describe

            plans.append(replace(plan("vjp", describe(asked)), enough=own_classifier.SAMPLES))
        except Exception as error:  # whatever it is, it is a result
            say(name, "vjp", error)
        for each in plans:
            try:
                done = export_plan(each, {**examples, **asked.inputs}, Path(folder))
            except Exception as error:  # as above
                say(name, each.name, error)
            else:
                say(
                    name,
                    each.name,
                    None,
                    relative_error=done.checked.relative_error,
                    left_out=done.checked.left_out,
                )
