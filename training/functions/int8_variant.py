"""An int8 variant of one's own classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.manifest import Graph
from training.functions.exported import ExportedFunction
from training.publish.agreement import GraphRunner
from training.publish.int8 import quantise
from training.publish.measure import single_image_seconds

BATCH = 32
# Other processors add int8 products in another order and width: the same graph may be off by
# somewhat more there, but not by a multiple.
MARGIN, SLACK = 2.0, 0.02


def add(exported: list[ExportedFunction], pictures: NDArray[np.uint8], folder: Path) -> None:
    """Calibrate on ``pictures``, and add the variant to ``probabilities`` in place."""
    place = next(i for i, each in enumerate(exported) if each.plan.name == "probabilities")
    done = exported[place]
    plain, small = folder / done.entry.graph.file, folder / "probabilities.int8.onnx"
    quantise(plain, pictures, small)
    same = (_classes(plain, pictures) == _classes(small, pictures)).mean()
    samples = done.checked.samples
    found = GraphRunner(small)({"image": samples["probabilities.image"]})["probabilities"]
    worst = float(np.abs(found - samples["probabilities.probabilities"]).max())
    agreement = done.entry.graph.agreement.model_copy(
        update={
            "maximum_absolute_error": worst,
            "absolute_tolerance": round(MARGIN * worst + SLACK, 3),
            "relative_tolerance": 0.0,
            "details": {
                "calibration_agreement": float(same),
                "speed_up": single_image_seconds(plain) / single_image_seconds(small),
            },
        }
    )
    variant = Graph(file=small.name, precision="int8", agreement=agreement)
    exported[place] = replace(done, entry=done.entry.model_copy(update={"variants": (variant,)}))


def _classes(graph: Path, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    run = GraphRunner(graph)
    parts = [
        run({"image": pictures[start : start + BATCH]})["probabilities"].argmax(1)
        for start in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts)
