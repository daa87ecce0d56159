"""Publish a classifier again, untrained: with the outputs and checks that came after it.

python -m training republish cifar-improved [--images FOLDER_OR_ZIP]

The weights, the record of their training and its history are those of the newest version. The
graphs are exported and checked anew, so that a classifier from before ``familiar`` has it then. The
test figures are left out, since they are of the graphs before: ``evaluate`` measures the new ones.
"""

import argparse
from pathlib import Path

from contract.remote import on_this_machine, open_draft
from training.fit.checkpoint import Epoch
from training.fit.loop import Fitted
from training.jobs.evaluate import add_model_and_images, command
from training.publish.classifier_artifact import write_artifact
from training.publish.published import history, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training republish``."""
    add_model_and_images(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, check, publish. Raises JobError or ArtifactError; then nothing is published."""
    with on_this_machine(arguments.artifacts, arguments.model) as root:
        _republish(arguments, root)


def _republish(arguments: argparse.Namespace, root: Path) -> None:
    published = load(root, arguments.model, arguments.images, arguments.zip_encoding)
    training = published.manifest.training
    epochs = [
        Epoch(**row | {"epoch": int(row["epoch"])})  # type: ignore[arg-type]
        for row in history(published.artifact)
    ]
    fitted = Fitted(published.network, published.normalise, epochs, [training.device])
    config = {"weights_of_version": published.manifest.version} | training.config
    with open_draft(arguments.artifacts, arguments.model) as draft:
        record = training.model_copy(update={"config": config})
        draft.publish(write_artifact(draft, fitted, published.data, record))
    before = f"{arguments.artifacts}/{arguments.model}/{published.manifest.version}"
    print(f"published {draft.published}; {before} may be removed")
    print(f"the test images: {command(arguments.model, arguments)}")
