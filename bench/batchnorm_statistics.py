"""What BatchNorm's statistics of a part of each batch cost: one process against several.

    python -m bench.batchnorm_statistics --images cifar10.zip
    torchrun --standalone --nproc-per-node=2 -m bench.batchnorm_statistics --images cifar10.zip

Trains a narrow ``improved`` network on a few of the images by the preset ``quick``, with several
seeds, and prints the accuracy and loss on the validation images. Without BatchNorm the two would
be the same but for rounding, as tests/training/test_process_group.py shows.
"""

import argparse
import statistics
from pathlib import Path

import torch

from training.data.images import Split, load_images
from training.fit.device import Device
from training.fit.loop import fit
from training.fit.presets import QUICK
from training.fit.process_group import join
from training.networks.cnn_improved import ImprovedCNN

WIDTHS = (16, 32, 64)
VALIDATION = 5000


def some(split: Split, count: int) -> Split:
    """The first ``count`` images, in an order of no meaning."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[:count]
    return Split(split.images[order], split.labels[order])


def main() -> None:
    """Train, and print a line for each seed and one for all of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.batchnorm_statistics")
    parser.add_argument("--images", type=Path, required=True, help="a folder or zip of classes")
    parser.add_argument("--count", type=int, default=4000, help="to train on, by default 4,000")
    parser.add_argument("--batch", type=int, default=200, help="by default 200")
    parser.add_argument("--seeds", type=int, default=5, help="by default 5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_images(options.images, validation=VALIDATION)
    train = some(data.train, options.count)
    recipe = QUICK.with_changes(batch=options.batch)
    with join(Device(torch.device("cpu"), bfloat16=False)) as (group, device), group.quiet():
        top1, loss = [], []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            network = ImprovedCNN(len(data.classes), WIDTHS)
            last = fit(
                network, train, data.validation, recipe, seed=seed, device=device, group=group
            ).history[-1]
            top1.append(100 * last.validation_top1)
            loss.append(last.validation_loss)
            print(f"seed {seed}: {top1[-1]:.2f} %, loss {loss[-1]:.4f}", flush=True)
        for name, values in (("top-1, %", top1), ("loss", loss)):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(
                f"{group.size} × {options.batch // group.size} images a step, {name}: "
                f"{statistics.fmean(values):.3f} ± {spread / len(values) ** 0.5:.3f}"
            )


if __name__ == "__main__":
    main()
