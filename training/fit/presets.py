"""The recipes that are published, found on validation images."""

from training.fit.recipe import Recipe
from training.networks.backbone import BACKBONES

BASELINE = Recipe(
    epochs=30, batch=128, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=0.1, flip=False
)
# Without teachers: what two CPU cores that multiply bfloat16 (AVX-512) do in 50 minutes.
IMPROVED = Recipe(
    epochs=72,
    batch=1000,
    optimizer="muon",
    lr=0.17,
    sgd_lr=53.0,
    head_lr=0.83,
    weight_decay=0.002,
    label_smoothing=0.1,
    translate=3,
    cutout=10,
    average=0.99,
    trained_share=0.5,
)
# What two cores without bfloat16 (AVX2, fp32) do in 55 minutes, and in 13 with a narrower network.
# Shorter runs overfit less, and so need less augmentation. In the few epochs of the second nearly
# every image is still hard: it trains on all.
HOUR_WITHOUT_BFLOAT16 = IMPROVED.with_changes(epochs=37, translate=2, cutout=8)
# Learns from teachers that answered for 24 augmented copies of every image: no image is too easy
# then. Labels say little of mixed images, a teacher's answer says more. Six such runs at once did
# as many epochs in five minutes of an H200.
TAUGHT = IMPROVED.with_changes(
    epochs=186, cutout=0, cutmix=0.5, trained_share=1.0, teacher_share=0.9, teacher_copies=24
)
FAST = TAUGHT.with_changes(epochs=235)
# A teacher, 4.7 times the multiply-adds of its pupil: few epochs. It too learns from mixed images,
# so that its answers to them are good ones.
WIDE = IMPROVED.with_changes(
    epochs=30, cutout=0, cutmix=0.5, trained_share=1.0, label_smoothing=0.05
)
ONE_RECIPE = {"fast": FAST, "wide": WIDE}  # by network, whatever the preset
QUICK_WITHOUT_BFLOAT16 = HOUR_WITHOUT_BFLOAT16.with_changes(epochs=8, cutout=0, trained_share=1.0)
# With bfloat16 twice as many take ten minutes, enough for some augmentation to help.
QUICK = QUICK_WITHOUT_BFLOAT16.with_changes(epochs=16, cutout=6)

# For torchvision's pretrained networks: first the head alone, then all layers at a low rate.
BACKBONE = Recipe(
    epochs=15,
    batch=32,
    optimizer="adamw",
    lr=3e-4,
    weight_decay=0.05,
    warmup=0.1,
    label_smoothing=0.1,
    translate=2,
    head_epochs=5,
)

NAMES = ("release", "hour", "quick")


def preset(network: str, name: str, *, taught: bool = False, bfloat16: bool = False) -> Recipe:
    """The recipe of a ``network`` and a preset, one of ``NAMES``.

    ``taught``: by a teacher. ``bfloat16``: on a device that multiplies it, where the same time is
    enough for twice as many epochs.
    """
    if taught and network == "improved" and name == "release":
        return TAUGHT
    if network == "baseline":
        return BASELINE.with_changes(epochs=10) if name == "quick" else BASELINE
    if network in BACKBONES:
        return BACKBONE
    if network in ONE_RECIPE:
        return ONE_RECIPE[network]
    if bfloat16:
        return {"release": IMPROVED, "hour": IMPROVED, "quick": QUICK}[name]
    return {
        "release": IMPROVED,
        "hour": HOUR_WITHOUT_BFLOAT16,
        "quick": QUICK_WITHOUT_BFLOAT16,
    }[name]
