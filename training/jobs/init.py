"""Write a file from which a function can be published, with comments.

python -m gradserve init surrogate.py
"""

import argparse
from pathlib import Path

from training.errors import JobError
from training.functions.template import TEMPLATE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``gradserve init``."""
    parser.add_argument("file", type=Path, metavar="FILE.py")


def run(arguments: argparse.Namespace) -> None:
    """Write the template. Raises JobError if the file is there already."""
    path: Path = arguments.file
    if path.suffix != ".py":
        raise JobError(f"{path}: give a name that ends in .py")
    model = path.stem.lower().replace("_", "-")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(TEMPLATE.format(file=path.name, model=model))
    except FileExistsError:
        raise JobError(f"{path} is there already; nothing was written") from None
    print(f"wrote {path}; publish it with: gradserve publish {path}:build --name {model}")
