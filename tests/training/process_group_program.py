"""What the tests of several processes run in each: ``process_group_program.py FOLDER [HOW]``.

Trains a network without BatchNorm and dropout, whose result doesn't depend on who computes what,
and leaves its weights and history in FOLDER. HOW is ``lose``: process 1 is killed once, in epoch 3;
``slow``: the first process works at the end for longer than PyTorch would have the others wait;
``differ``: each process has its own seed.
"""

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from training.data.images import Split
from training.fit.checkpoint import Epoch
from training.fit.device import Device
from training.fit.loop import fit
from training.fit.presets import IMPROVED
from training.fit.process_group import join

# Not AdamW, to which gradients twice as large are the same.
RECIPE = IMPROVED.with_changes(
    epochs=4, batch=30, sgd_lr=0.05, head_lr=0.01, trained_share=1.0, average=0.9
)


class Plain(nn.Module):
    """Logits [n, 2] of images [n, 3, 32, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)
        self.head = nn.Linear(4 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x)).flatten(1))

    def prepare(self, images: Tensor) -> None:
        """Nothing is computed from the images beforehand."""


def pictures() -> Split:
    """Bright pictures against dark ones, with much noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(150) % 2
    images = torch.randint(0, 216, (150, 3, 32, 32), generator=generator)
    return Split((images + 39 * labels[:, None, None, None]).to(torch.uint8), labels)


def main() -> None:
    folder = Path(sys.argv[1])
    lost = folder / "lost"
    if "slow" in sys.argv:
        distributed_c10d.default_pg_timeout = timedelta(seconds=5)
    exact = Device(torch.device("cpu"), bfloat16=False)
    with join(exact) as (group, device), group.quiet():

        def on_epoch(row: Epoch) -> None:
            if "lose" in sys.argv and row.epoch == 2 and group.rank == 1 and not lost.exists():
                lost.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        torch.manual_seed(7)
        fitted = fit(
            Plain(),
            pictures(),
            pictures(),
            RECIPE,
            seed=3 + (group.rank if "differ" in sys.argv else 0),
            device=device,
            folder=folder / "run",
            on_epoch=on_epoch,
            group=group,
        )
        print(f"process {group.rank} is done")
        if "slow" in sys.argv and group.leads:
            time.sleep(10)
        if group.leads:
            save_file(
                {k: v.contiguous() for k, v in fitted.network.state_dict().items()},
                folder / "weights.safetensors",
            )
            rows = [asdict(row) for row in fitted.history]
            (folder / "history.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
