"""A classifier of one's own, served at /classify and /explain like those trained here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.errors import PictureError
from contract.pictures import decode, open_image
from training.errors import JobError
from training.functions.plans import Plan
from training.functions.publication import Publication
from training.functions.refusal import FAILS_CHECKS, Refusal
from training.publish import saliency_checks
from training.publish.classifier import natural_images, sample_images
from training.publish.derivatives import frozen, saliency
from training.publish.export import BATCH, GraphInput
from training.publish.record import functional, record, traceable
from training.publish.saliency_checks import SaliencyFigures

SAMPLES = 8
CANDIDATES = 40  # pictures among which to find those; of a network with ReLU many are at a kink
LEAST_PICTURES = 16
MOST_CHECKED, LEAST_CHECKED = 32, 8  # maps, of small pictures and of large ones
MAX_PIXELS, MAX_SIDE = 50_000_000, 65_535


class ServedClassifier(nn.Module):
    """Image uint8 [n, side, side, 3] → probabilities float32 [n, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def prepare(self, image: Tensor) -> Tensor:
        """What the network takes: float32 [n, 3, side, side], normalised."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        normalised: Tensor = (pixels - self.mean) / self.std
        return normalised

    def forward(self, image: Tensor) -> Tensor:
        """Normalise, classify, softmax."""
        logits: Tensor = self.network(self.prepare(image))
        return logits.softmax(1)


def plans(publication: Publication) -> tuple[list[Plan], dict[str, Tensor]]:
    """``probabilities`` and, if asked, ``saliency``, with the pictures that they are checked on.

    Raises JobError if the network takes or gives something else.
    """
    side, classes = publication.image_side or 0, list(publication.classes or ())
    served = frozen(
        ServedClassifier(publication.function, publication.mean, publication.std)  # type: ignore[arg-type]
    )
    images = sample_images(CANDIDATES, side=side)
    labels = torch.arange(CANDIDATES) % len(classes)
    try:
        with torch.no_grad():
            found = served(images[:2])
    except Exception as error:  # it is the user's own
        raise JobError(
            f"the network fails on float32 [2, 3, {side}, {side}]: {type(error).__name__}: {error}"
        ) from error
    if found.shape != (2, len(classes)):
        raise JobError(
            f"the network gives {list(found.shape)} for 2 pictures; with {len(classes)} classes "
            f"it should be [2, {len(classes)}]"
        )
    picture = {"image": GraphInput(torch.uint8, (BATCH, side, side, 3))}

    def probabilities(inputs: Sequence[Tensor], _: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad(), traceable():
            return [served(inputs[0])]

    made = [
        Plan(
            "probabilities",
            picture,
            {},
            ("probabilities",),
            lambda: record(lambda image: (served(image),), [images], [True]),
            probabilities,
            SAMPLES,
        )
    ]
    if "saliency" in publication.derivatives:
        explain = saliency(served.network, served.prepare)
        recordable = saliency(functional(served.network), served.prepare)

        def maps(inputs: Sequence[Tensor], _: Sequence[Tensor]) -> Sequence[Tensor]:
            with traceable():
                return [explain(*inputs)]

        made.append(
            Plan(
                "saliency",
                {**picture, "class": GraphInput(torch.int64, (BATCH,))},
                {},
                ("saliency",),
                lambda: record(
                    lambda *given: (recordable(*given),), [images, labels], [True, True]
                ),
                maps,
                SAMPLES,
            )
        )
    return made, {"image": images, "class": labels}


def check_saliency(
    publication: Publication, photographs: NDArray[np.uint8] | None
) -> SaliencyFigures:
    """The map on ``photographs`` [n, side, side, 3]; without any, on made pictures, in part.

    Raises Refusal if the network can't be copied, or fails with shuffled weights.
    """
    side = publication.image_side or 0
    served = frozen(
        ServedClassifier(publication.function, publication.mean, publication.std)  # type: ignore[arg-type]
    )
    count = max(LEAST_CHECKED, min(MOST_CHECKED, MOST_CHECKED * 1024 // side**2))
    if photographs is None:
        images = torch.cat(
            [make(count // 2, side=side) for make in (sample_images, natural_images)]
        )
    else:
        images = torch.from_numpy(photographs[:: max(1, len(photographs) // count)][:count])
    try:
        return saliency_checks.check(
            served.network,
            served.prepare,
            lambda network: saliency(network, served.prepare),
            images,
            integrated=False,
            photographs=photographs is not None,
        )
    except Exception as error:  # it is the user's own
        raise Refusal(
            "saliency", FAILS_CHECKS, f"it can't be checked: {type(error).__name__}: {error}"
        ) from error


def pictures(folder: Path, side: int, limit: int = 512) -> NDArray[np.uint8]:
    """The first pictures under ``folder``, as the service would see them, [count, side, side, 3].

    Raises JobError if there are too few.
    """
    if not folder.is_dir():
        raise JobError(
            f"{folder} is not a folder; --pictures and --int8 take one with pictures such as the "
            "classifier will see"
        )
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = open_image(path.read_bytes(), MAX_PIXELS, MAX_SIDE)
            found.append(decode(header, side).pixels)
        except PictureError:
            continue  # whatever else lies there
        if len(found) == limit:
            break
    if len(found) < LEAST_PICTURES:
        raise JobError(
            f"{folder} has {len(found)} readable pictures; {LEAST_PICTURES} or more are needed, "
            "such as the classifier will see"
        )
    return np.stack(found)
