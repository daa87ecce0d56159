"""What a model is called, when it may be published over another, and commands that jobs print.

One rule for every job that takes people's own data: the name is that of the data's file or folder,
unless ``--name`` says otherwise; a model that was trained on other data is published over with
``--replace`` only.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

from contract.manifest import Data
from contract.remote import Root, manifests
from training.errors import JobError

LONGEST = 63  # as the contract has it
_SUFFIXES = re.compile(r"\.(csv|tsv|txt|dat|zip)$", re.IGNORECASE)
_FOLDED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"})


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """``--name``, whose default is told in words, and ``--replace``."""
    parser.add_argument("--name", default=None, help=f"of the model; by default {default}")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="publish over a model of that name that was trained on other data",
    )


def choose_name(given: str | None, data: Path, *, room: int = 0) -> str:
    """The name for a model of ``data``: ``given``, checked, or that of the file or folder.

    Lower case, accents folded; what isn't a letter or digit becomes a hyphen. ``room`` characters
    are left for what the job appends. Raises JobError for a name that no model can have, or where
    nothing is left of the file's.
    """
    if given is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", given) or len(given) > LONGEST - room:
            raise JobError(
                f"--name {given}: a model's name has lower-case letters, digits and hyphens only, "
                f"at most {LONGEST - room}, and starts with a letter or digit"
            )
        return given
    source = data.expanduser()
    name = folded(_SUFFIXES.sub("", source.name or source.resolve().name))[: LONGEST - room]
    name = name.rstrip("-")
    if not name:
        raise JobError(f"{data}: no letter or digit of this name can name a model; give --name")
    return name


def folded(text: str) -> str:
    """``text`` as part of a model's name: ``Été 2024 (α)`` → ``ete-2024``."""
    lowered = unicodedata.normalize("NFKD", text.casefold().translate(_FOLDED))
    plain = "".join(letter for letter in lowered if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def require_replaceable(artifacts: Root, model: str, data: Data, *, replace: bool) -> None:
    """Raise JobError if ``model`` has a version that was trained on other data than ``data``.

    Versions that can't be read say nothing.
    """
    if replace:
        return
    for manifest in manifests(artifacts, model):
        published = manifest.data
        if published is not None and published.sha256 != data.sha256:
            raise JobError(
                f"{model} version {manifest.version} was trained on other data ({published.name}); "
                "to publish over it add --replace, or choose another --name"
            )
        return


def command(job: str, *words: str, python: str = "python", **options: object) -> str:
    """A command line to print, with the options that it needs, as a shell takes it.

    Options that are None, False or the default (``--artifacts artifacts``) are left out.
    """
    parts = [python, "-m", "training", job, *words]
    for name, value in options.items():
        if value is None or value is False or (name == "artifacts" and str(value) == "artifacts"):
            continue
        parts.append(f"--{name.replace('_', '-')}")
        if value is not True:
            parts.append(str(value))
    return subprocess.list2cmdline(parts) if sys.platform == "win32" else shlex.join(parts)


def this_python() -> str:
    """What starts this Python in the shell that started it: after ``make train`` its path."""
    running, found = Path(sys.executable), shutil.which("python")
    if found is not None and Path(found).parent.resolve() == running.parent.resolve():
        return "python"
    here = Path.cwd()
    return str(running.relative_to(here) if running.is_relative_to(here) else running)
