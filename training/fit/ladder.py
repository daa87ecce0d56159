"""The way from the homework's table to our own network, one change a step; ``ablation`` runs it.

Steps are data: what each changes in the network and in the recipe of the step before it.
"""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from typing import Any

from training.fit.presets import BASELINE, IMPROVED
from training.fit.recipe import Recipe
from training.networks.between import Plan

ALWAYS_LEARNED = 10**6  # epochs in which a first convolution that isn't whitening keeps its bias
MUON_BATCH = 250
# On the mean loss a smaller batch takes proportionally smaller steps, as in Recipe.for_images.
MUON_RATIO = MUON_BATCH / IMPROVED.batch


@dataclass(frozen=True)
class Step:
    """One network and recipe of the ladder."""

    name: str
    plan: Plan
    recipe: Recipe

    def definition(self) -> str:
        """Sixteen hexadecimal digits that change with anything that the step is made of.

        What has its default is left out: a field that the recipe gains later changes nothing.
        """
        parts = [
            {
                field.name: getattr(each, field.name)
                for field in fields(each)
                if getattr(each, field.name) != field.default
            }
            for each in (self.plan, self.recipe)
        ]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# Name, changes of the network, changes of the recipe.
CHANGES: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("table", {}, {}),
    ("augmentation", {}, {"flip": True, "translate": 2}),
    ("batchnorm", {"batchnorm": True}, {}),
    ("groups", {"groups": True}, {"whitening_bias_epochs": ALWAYS_LEARNED}),
    (
        "whitening",
        {"whitening": True},
        {"whitening_bias_epochs": IMPROVED.whitening_bias_epochs},
    ),
    ("residual", {"depths": (2, 3, 3)}, {}),
    (
        "muon",
        {},
        {
            "optimizer": "muon",
            "batch": MUON_BATCH,
            "lr": IMPROVED.lr,
            "sgd_lr": IMPROVED.sgd_lr * MUON_RATIO,
            "head_lr": IMPROVED.head_lr * MUON_RATIO,
            "weight_decay": IMPROVED.weight_decay * MUON_RATIO,
            "warmup": IMPROVED.warmup,
        },
    ),
    ("average", {}, {"average": IMPROVED.average}),
    ("smoothing", {}, {"label_smoothing": IMPROVED.label_smoothing}),
    ("cutout", {}, {"cutout": 8}),
)


def ladder(epochs: int) -> list[Step]:
    """Every step, each with all changes up to its own, for ``epochs`` epochs."""
    plan, recipe = Plan(), BASELINE.with_changes(epochs=epochs)
    steps = []
    for name, network, training in CHANGES:
        plan, recipe = replace(plan, **network), recipe.with_changes(**training)
        steps.append(Step(name, plan, recipe))
    return steps
