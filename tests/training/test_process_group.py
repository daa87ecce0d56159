"""Training by two processes, started by torchrun, against training by one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_cifar_job import pictures  # noqa: F401 a fixture

from contract import store
from training.errors import JobError
from training.fit import checkpoint
from training.fit.process_group import ProcessGroup

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("process_group_program.py")
# The host's own name, which torchrun would look up, need not resolve.
TORCHRUN = (
    *("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
    "--nproc-per-node=2",
)


def run(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, on one thread a process."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    weights = load_file(folder / "weights.safetensors")
    return weights, json.loads((folder / "history.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trained."""
    folder = tmp_path_factory.mktemp("alone")
    run(PROGRAM, folder)
    return folder


def same(one: Path, other: Path) -> None:
    """The same weights and history, but for rounding."""
    (weights, history), (others, their_history) = outcome(one), outcome(other)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-5)
    for row, theirs in zip(history, their_history, strict=True):
        for figure in ("train_loss", "validation_loss"):
            assert theirs[figure] == pytest.approx(row[figure], rel=1e-3), figure
        for figure in ("train_top1", "validation_top1"):
            assert theirs[figure] == pytest.approx(row[figure], abs=0.02), figure


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_goes_to_one_process(size: int) -> None:
    rows = torch.arange(50)
    shares = [ProcessGroup(rank, size).share(rows) for rank in range(size)]
    assert sorted(torch.cat(shares).tolist()) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_images_are_refused() -> None:
    with pytest.raises(JobError, match="fewer than there are processes"):
        ProcessGroup(0, 3).share(torch.arange(2))


def test_two_processes_train_as_one_does(alone: Path, tmp_path: Path) -> None:
    """The same batches, learning rates and augmentation: only sums are rounded otherwise."""
    done = run(*TORCHRUN, PROGRAM, tmp_path)
    same(alone, tmp_path)
    assert done.stdout.count("is done") == 1
    saved = checkpoint.read(tmp_path / "run")
    assert saved is not None
    assert saved.devices[0].startswith("2 × ")


def test_a_lost_process_costs_what_was_done_since_the_checkpoint(
    alone: Path, tmp_path: Path
) -> None:
    done = run(*TORCHRUN, PROGRAM, tmp_path, "lose", check=False)
    assert done.returncode != 0
    assert (tmp_path / "lost").exists()
    assert not (tmp_path / "weights.safetensors").exists()
    run(*TORCHRUN, PROGRAM, tmp_path, "lose")
    same(alone, tmp_path)


def test_torchrun_restarts_all_after_a_loss(alone: Path, tmp_path: Path) -> None:
    """The new processes don't look for the old ones, whose addresses torchrun still has."""
    done = run(*TORCHRUN, "--max-restarts=1", PROGRAM, tmp_path, "lose")
    assert (tmp_path / "lost").exists()
    assert done.stdout.count("is done") == 1
    same(alone, tmp_path)


def test_the_others_wait_for_as_long_as_the_first_one_works(tmp_path: Path) -> None:
    """As when it publishes. PyTorch's own limit is 10 or 30 minutes; here it is made 5 s."""
    run(*TORCHRUN, PROGRAM, tmp_path, "slow")
    assert (tmp_path / "weights.safetensors").exists()


def test_processes_with_different_options_are_refused(tmp_path: Path) -> None:
    done = run(*TORCHRUN, PROGRAM, tmp_path, "differ", check=False)
    assert done.returncode != 0
    assert "the processes differ in what they train" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_command_trains_and_publishes_once(
    pictures: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    words = ["-m", "training", "cifar", "--preset", "quick", "--name", "colours", "--side", "32"]
    words += ["--images", pictures, "--artifacts", tmp_path / "artifacts", "--epochs", "3"]
    words += ["--set", "batch=30", "--set", "sgd_lr=1.5", "--set", "head_lr=0.03"]
    done = run(*TORCHRUN, *words, "--runs", tmp_path / "runs", "--resume")
    assert done.stdout.count("training on 2 processes") == 1
    assert done.stdout.count("published ") == 1
    assert store.list_versions(tmp_path / "artifacts", "colours") == [1]
    manifest = store.verify(tmp_path / "artifacts" / "colours" / "1").manifest
    assert manifest.metrics["top1"]["validation"] > 0.9
