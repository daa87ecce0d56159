"""Publish a module or function of one's own with its derivatives.

python -m gradserve publish surrogate.py:build --name surrogate
"""

import argparse
from pathlib import Path

from training.functions import publisher, source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``gradserve publish``."""
    parser.add_argument("source", metavar="FILE.py:FUNCTION", help="gives the Publication")
    parser.add_argument("--name", help="of the model; by default that of the file")
    parser.add_argument(
        "--check", action="store_true", help="only try: say what works, publish nothing"
    )
    parser.add_argument(
        "--skip-failing", action="store_true", help="publish without the derivatives that fail"
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="PICTURES",
        help="a classifier: add an int8 variant, calibrated on the pictures of this folder",
    )


def run(arguments: argparse.Namespace) -> None:
    """Export, check, publish. Raises JobError, and then nothing is published."""
    name = arguments.name or _name_of(arguments.source)
    publication = source.load(arguments.source)
    if arguments.check:
        publisher.check(publication)
        return
    publisher.publish(
        publication,
        name,
        arguments.artifacts,
        skip_failing=arguments.skip_failing,
        int8=arguments.int8,
    )


def _name_of(reference: str) -> str:
    return Path(reference.rpartition(":")[0] or reference).stem.lower().replace("_", "-")
