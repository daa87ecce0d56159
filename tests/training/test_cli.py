"""The command line: quick help, exit statuses, and Ctrl-C in the middle of a job."""

import argparse
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.errors import PublishConflict
from contract.store import list_versions
from training import __main__ as cli
from training.errors import JobError

REPOSITORY = Path(__file__).parents[2]


def job(run: Any) -> SimpleNamespace:
    """A job module that does ``run``."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--network")

    return SimpleNamespace(add_arguments=add_arguments, run=run)


def put(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Let every job be one that does ``run``."""
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: job(run))


def raising(error: BaseException) -> Any:
    def run(arguments: argparse.Namespace) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (JobError("points.csv: row 3 is\nodd"), 2, "points.csv: row 3 is odd"),
        (PublishConflict(Path("a/b"), "busy"), 2, "a/b: busy"),
        (OSError(28, "No space left on device", "a/b"), 2, "a/b: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted; nothing half-done was published"),
        (KeyboardInterrupt("kept; go on with --resume"), 130, "kept; go on with --resume"),
    ],
)
def test_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    put(monkeypatch, raising(error))
    assert cli.main(["curve", "--artifacts", str(tmp_path)]) == status
    assert capsys.readouterr().err == f"python -m training: {text}\n"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(monkeypatch, raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["curve", "--artifacts", str(tmp_path)])


def test_a_folder_that_cannot_be_written_is_found_before_the_job_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(monkeypatch, raising(AssertionError("the job was started")))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "artifacts"):
        assert cli.main(["curve", "--artifacts", str(folder)]) == 2
        complaint = capsys.readouterr().err
        assert str(folder) in complaint and complaint.count("\n") == 1


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "x", "²"])
def test_a_seed_is_a_number_that_every_generator_takes(
    seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sigmoid-conv", f"--seed={seed}"])
    assert stopped.value.code == 2
    assert "is not a seed; give a number from 0 to 4294967295" in capsys.readouterr().err


def test_all_runs_every_job_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the jobs' real options, so that a change of theirs can't break it unnoticed."""
    seen = []

    def run(arguments: argparse.Namespace) -> None:
        assert arguments.artifacts == tmp_path
        chosen = vars(arguments)
        seen.append((arguments.job, chosen.get("network") or chosen.get("model")))

    for name in cli.JOBS:
        module = importlib.import_module(cli._module(name))
        monkeypatch.setattr(module, "run", run)
    assert cli.main(["all", "--artifacts", str(tmp_path)]) == 0
    assert seen == [
        ("curve", None),
        ("sigmoid-conv", None),
        ("cifar", "baseline"),
        ("cifar", "improved"),
        ("evaluate", "cifar-baseline"),
        ("evaluate", "cifar-improved"),
    ]


def test_all_stops_at_the_first_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def run(arguments: argparse.Namespace) -> None:
        seen.append(arguments.job)
        raise JobError("no")

    put(monkeypatch, run)
    assert cli.main(["all", "--artifacts", str(tmp_path)]) == 2
    assert seen == ["curve"]


@pytest.mark.parametrize("words", [[], ["bake"], ["curve", "--oven", "hot"]])
def test_wrong_words_show_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


def test_help_needs_no_pytorch() -> None:
    code = (
        "import sys; from training.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in (*cli.JOBS, "all"):
        assert name in done.stdout


def test_ctrl_c_ends_a_job_with_one_line_and_publishes_nothing(tmp_path: Path) -> None:
    """A real process and a real SIGINT, once it has begun to fit."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "training", "curve", "--artifacts", str(tmp_path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("polynomial:"):
            break
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=180)
    assert process.returncode == 130
    assert complaint == "python -m training: interrupted; nothing half-done was published\n"
    assert list_versions(tmp_path, "curve-mlp") == []


def test_without_the_extra_it_says_what_to_install() -> None:
    """As `pip install gradserve` leaves it: no torch."""
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from training.__main__ import main; sys.exit(main(['curve']))"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "python -m training: torch is not installed: pip install 'gradserve[training]'"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_numpys_solver_starts_no_threads() -> None:
    program = "import training.__main__, numpy, os; print(len(os.listdir('/proc/self/task')))"
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
