"""The command line: ``python -m training curve | cifar | evaluate | publish | … | all``.

Each job is a module with ``add_arguments(parser)`` and ``run(arguments)``. A job's module imports
PyTorch, which takes seconds; it is imported only if its job is chosen.
"""

import os

# Before NumPy is imported. Its solver waits for its threads by turning round: for matrices as small
# as a curve's that takes many times the processor time where the cores are shared.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import importlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.errors import ArtifactError
from contract.remote import Remote, Root, root_of
from training.errors import JobError

JOBS = {
    "curve": "fit a network and a polynomial to points; publish them with their derivatives",
    "sigmoid-conv": "publish the loss gradients of one sigmoid convolution",
    "cifar": "train an image classifier",
    "evaluate": "measure a published classifier on images",
    "republish": "publish a classifier again, with what came after it was trained",
    "ablation": "train every step from the table to our own network",
    "check-saliency": "check the saliency map of a published classifier",
    "publish": "publish a module or function of your own with its derivatives",
    "init": "write a file from which a function of your own can be published",
    "import": "publish a ready ONNX file",
}
# Where a job's module has another name: `import` is a word of Python's.
MODULES = {"import": "import_model"}
# What `all` runs, in turn.
EVERYTHING: tuple[tuple[str, ...], ...] = (
    ("curve",),
    ("sigmoid-conv",),
    ("cifar", "--network", "baseline"),
    ("cifar", "--network", "improved"),
    ("evaluate", "cifar-baseline"),
    ("evaluate", "cifar-improved"),
)
# What the extra ``training`` installs, by the names under which it is imported.
EXTRA = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "matplotlib",
    "tqdm",
    "ninja",
    "torchinfo",
}
BAD_INPUT, INTERRUPTED = 2, 130


PROGRAM = "python -m training"


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run the job that ``arguments`` name; returns the exit status.

    ``program`` is what was typed before them, for the help and the complaints.

    0: done. 2: something a person can mend, told in one line on stderr. 130: Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Into a file or a pipe as well each line appears when it is printed, and a letter that the
        # locale lacks, such as that of f′, ends no job.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parser(_job_named_in(words), program).parse_args(words)
        _require_writable(parsed.artifacts)
        for job, options in _steps(parsed):
            importlib.import_module(_module(job)).run(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        print(
            f"{program}: {error.name} is not installed: pip install 'gradserve[training]'",
            file=sys.stderr,
        )
        return BAD_INPUT
    except (JobError, ArtifactError) as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""  # unknown where a write failed
        print(f"{program}: {where}{error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        # A job that keeps something for --resume says so in its own words.
        text = str(interrupt) or "interrupted; nothing half-done was published"
        print(f"{program}: {text}", file=sys.stderr)
        return INTERRUPTED
    return 0


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _require_writable(artifacts: Root) -> None:
    """Find out now, and not after hours of training."""
    if isinstance(artifacts, Remote):
        artifacts.require_writable()
        return
    artifacts.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=artifacts):
            pass
    except OSError as error:
        raise JobError(f"{artifacts}: nothing can be written here: {error.strerror}") from None


def _parser(chosen: str | None, program: str = PROGRAM) -> argparse.ArgumentParser:
    """The parser, with the options of the ``chosen`` job only: others aren't imported."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Train offline and publish verified artifacts, which the service then serves.",
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, text in JOBS.items():
        job = _add(jobs, name, text)
        if name == chosen:
            importlib.import_module(_module(name)).add_arguments(job)
    _add(jobs, "all", "every job in turn, with its default options")
    return parser


def _add(jobs: Any, name: str, text: str) -> argparse.ArgumentParser:
    job: argparse.ArgumentParser = jobs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=_Formatter,
    )
    job.add_argument(
        "--artifacts",
        type=_artifacts,
        default=Path("artifacts"),
        metavar="DIR",
        help="where versions are published: a folder, or s3://bucket/prefix",
    )
    return job


def _artifacts(text: str) -> Root:
    try:
        return root_of(text)
    except ArtifactError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _steps(parsed: argparse.Namespace) -> list[tuple[str, argparse.Namespace]]:
    """The jobs to run and their options; for ``all`` checked before the first one starts."""
    if parsed.job != "all":
        return [(parsed.job, parsed)]
    folder = ["--artifacts", str(parsed.artifacts)]
    return [(step[0], _parser(step[0]).parse_args([*step, *folder])) for step in EVERYTHING]


def _job_named_in(words: Sequence[str]) -> str | None:
    return words[0] if words and words[0] in JOBS else None


def _module(job: str) -> str:
    return f"training.jobs.{MODULES.get(job, job.replace('-', '_'))}"


if __name__ == "__main__":
    sys.exit(main())
