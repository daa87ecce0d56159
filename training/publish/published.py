"""A published classifier again: its network from the checkpoint, its images and its history."""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from contract.manifest import ClassifierManifest, TrainedClassifierManifest
from contract.store import Artifact, newest_good
from training.data.images import ImageData, load_images
from training.errors import JobError
from training.fit.normalise import Normalise
from training.networks.classifier import make_classifier


@dataclass(frozen=True)
class Published:
    """The newest version of a classifier, with the images that it was trained on."""

    artifact: Artifact
    manifest: TrainedClassifierManifest
    data: ImageData
    network: nn.Module
    normalise: Normalise


def classifier(root: Path, model: str) -> tuple[Artifact, TrainedClassifierManifest]:
    """A published classifier that was trained here. Raises JobError if it is another model."""
    artifact, _ = newest_good(root, model)
    if not isinstance(artifact.manifest, ClassifierManifest):
        raise JobError(f"{model} is not an image classifier; it has nothing to evaluate here")
    try:
        return artifact, TrainedClassifierManifest.model_validate(artifact.manifest.model_dump())
    except ValidationError:
        raise JobError(
            f"{model} was published without a record of its training data, so that nobody can tell "
            "whether test images are apart from them; it can't be evaluated here"
        ) from None


def images(
    manifest: TrainedClassifierManifest, source: Path | None, zip_encoding: str | None
) -> ImageData:
    """What it was trained on, in the same splits. Raises JobError if ``source`` is other data."""
    config = manifest.training.config
    read = partial(
        load_images,
        source,
        split_seed=int(str(config["split_seed"])),
        side=int(manifest.functions["probabilities"].inputs[0].shape[1]),
        resize=manifest.resize,
        zip_encoding=zip_encoding,
    )
    asked = config.get("validation")
    data = read(validation=None if asked is None else int(str(asked)))
    if data.sha256 != manifest.data.sha256:
        raise JobError(
            f"{data.name} is not the data that {manifest.model} was trained on; its test images "
            "would not be known to be apart from those"
        )
    rows = manifest.data.splits["validation"]
    if len(data.validation) != rows:  # older manifests don't tell what --validation was
        data = read(validation=rows)
    return data


def load(root: Path, model: str, source: Path | None, zip_encoding: str | None) -> Published:
    """``model`` in ``root``, from its checkpoint, in eval mode. Raises JobError, ArtifactError."""
    artifact, manifest = classifier(root, model)
    data = images(manifest, source, zip_encoding)
    config = manifest.training.config
    network = make_classifier(
        str(config["network"]), str(config["preset"]), len(manifest.classes), data.side
    )
    normalise = Normalise(torch.zeros(3), torch.zeros(3))
    trained = nn.ModuleDict({"network": network, "normalise": normalise})
    trained.load_state_dict(load_file(artifact.folder / "checkpoint.safetensors"))
    trained.eval()
    return Published(artifact, manifest, data, network, normalise)


def history(artifact: Artifact) -> list[dict[str, float]]:
    """The rows of its history.csv."""
    lines = artifact.read("history.csv").decode().splitlines()
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
