"""Check the saliency map of a published classifier again, from its checkpoint.

python -m training check-saliency cifar-improved [--images FOLDER_OR_ZIP] [--plot FILE.png]

Prints the figures, and publishes nothing.
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file
from torch import nn, zeros

from contract.remote import on_this_machine
from training.data.images import load_images
from training.errors import JobError
from training.fit.normalise import Normalise
from training.jobs.evaluate import add_model_and_images, classifier
from training.networks.classifier import make_classifier
from training.publish import report, saliency_report
from training.publish.classifier import Probabilities
from training.publish.classifier_artifact import check_saliency
from training.publish.derivatives import frozen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training check-saliency``."""
    add_model_and_images(parser)
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE.png", help="draw it too")


def run(arguments: argparse.Namespace) -> None:
    """Check and print. Raises JobError if the map fails, or the images are others."""
    with on_this_machine(arguments.artifacts, arguments.model) as root:
        artifact, manifest = classifier(root, arguments.model)
        config = manifest.training.config
        side = int(manifest.functions["probabilities"].inputs[0].shape[1])
        data = load_images(
            arguments.images,
            split_seed=int(str(config["split_seed"])),
            validation=manifest.data.splits["validation"],
            side=side,
            resize=manifest.resize,
            zip_encoding=arguments.zip_encoding,
        )
        if data.sha256 != manifest.data.sha256:
            raise JobError(f"{data.name} is not the data that {arguments.model} was trained on")
        network = make_classifier(
            str(config["network"]), str(config["preset"]), len(manifest.classes), side
        )
        trained = nn.ModuleDict({"network": network, "normalise": Normalise(zeros(3), zeros(3))})
        trained.load_state_dict(load_file(artifact.folder / "checkpoint.safetensors"))
        served = Probabilities(
            network.folded(),  # type: ignore[operator]
            trained["normalise"],  # type: ignore[arg-type]
            1.0,
        )
        found = check_saliency(frozen(served), data)
    figures = found.as_metrics()
    print(f"{arguments.model}, version {manifest.version}, {found.images} images\n")
    print(report.table(("check", "found", "wanted"), saliency_report.rows(figures)))
    if arguments.plot is not None:
        saliency_report.draw(arguments.plot, figures)
    if failures := found.failures():
        raise JobError(f"{arguments.model}: {'; '.join(failures)}")
