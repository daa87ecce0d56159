"""Publish a module or function of one's own with its derivatives.

python -m gradserve publish surrogate.py:build --name surrogate
"""

import argparse
import threading
from pathlib import Path

from training.functions import publisher, source
from training.functions.time_limit import SECONDS


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
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="a classifier: check its saliency map on these, such as it will see; by default on "
        "those of --int8",
    )
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=SECONDS,
        metavar="SECONDS",
        help="stop a function that takes longer to try; 0: never",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 up")
    return seconds


def run(arguments: argparse.Namespace) -> None:
    """Export, check, publish. Raises JobError, and then nothing is published."""
    name = arguments.name or _name_of(arguments.source)
    publication = source.load(arguments.source)
    if arguments.check:
        publisher.check(
            publication,
            int8=arguments.int8,
            pictures=arguments.pictures,
            time_limit=arguments.time_limit,
        )
        return
    publisher.publish(
        publication,
        name,
        arguments.artifacts,
        skip_failing=arguments.skip_failing,
        int8=arguments.int8,
        pictures=arguments.pictures,
        time_limit=arguments.time_limit,
    )


def _name_of(reference: str) -> str:
    return Path(reference.rpartition(":")[0] or reference).stem.lower().replace("_", "-")
