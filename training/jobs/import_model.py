"""Publish a ready ONNX file, for its values only.

python -m gradserve import model.onnx --name surrogate [--samples samples.npz]
"""

import argparse
from pathlib import Path

from training.functions.imported import import_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``gradserve import``."""
    parser.add_argument("file", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--name", required=True, help="of the model")
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="SAMPLES.npz",
        help="an array for each input, to check it on; by default random numbers",
    )


def run(arguments: argparse.Namespace) -> None:
    """Check and publish. Raises JobError, and then nothing is published."""
    import_onnx(arguments.file, arguments.name, arguments.artifacts, samples=arguments.samples)
