"""Check the saliency map of a published classifier again, from its checkpoint.

python -m training check-saliency cifar-improved [--images FOLDER_OR_ZIP] [--plot FILE.png]

Prints the figures, and publishes nothing.
"""

import argparse
from pathlib import Path

from contract.remote import on_this_machine
from training.errors import JobError
from training.jobs.evaluate import add_model_and_images
from training.publish import report, saliency_report
from training.publish.classifier import Probabilities
from training.publish.classifier_artifact import check_saliency
from training.publish.derivatives import frozen
from training.publish.published import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training check-saliency``."""
    add_model_and_images(parser)
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE.png", help="draw it too")


def run(arguments: argparse.Namespace) -> None:
    """Check and print. Raises JobError if the map fails, or the images are others."""
    with on_this_machine(arguments.artifacts, arguments.model) as root:
        published = load(root, arguments.model, arguments.images, arguments.zip_encoding)
        folded = published.network.folded()  # type: ignore[operator]
        served = Probabilities(folded, published.normalise, 1.0)
        found = check_saliency(frozen(served), published.data)
    figures = found.as_metrics()
    print(f"{arguments.model}, version {published.manifest.version}, {found.images} images\n")
    print(report.table(("check", "found", "wanted"), saliency_report.rows(figures)))
    if arguments.plot is not None:
        saliency_report.draw(arguments.plot, figures)
    if failures := found.failures():
        raise JobError(f"{arguments.model}: {'; '.join(failures)}")
