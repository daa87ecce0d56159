"""An int8 variant of one's own classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.manifest import Graph
from training.functions.exported import ExportedFunction
from training.publish.agreement import GraphRunner
from training.publish.int8 import quantise, tolerance
from training.publish.measure import single_image_seconds

BATCH = 32


def add(exported: list[ExportedFunction], pictures: NDArray[np.uint8], folder: Path) -> None:
    """Calibrate on ``pictures``, and add the variant to ``probabilities`` in place.

    Of its samples those stay, a half, on which int8 differs least: made pictures lie between
    classes more often than real ones, where rounding moves probabilities far.
    """
    place = next(i for i, each in enumerate(exported) if each.plan.name == "probabilities")
    done = exported[place]
    plain, small = folder / done.entry.graph.file, folder / "probabilities.int8.onnx"
    quantise(plain, pictures, small)
    same = (_classes(plain, pictures) == _classes(small, pictures)).mean()
    samples = done.checked.samples
    found = GraphRunner(small)({"image": samples["probabilities.image"]})["probabilities"]
    errors = np.abs(found - samples["probabilities.probabilities"]).max(1)
    steady = np.sort(errors.argsort()[: (len(errors) + 1) // 2])
    samples = {key: rows[steady] for key, rows in samples.items()}
    worst = float(errors[steady].max())
    agreement = done.entry.graph.agreement.model_copy(
        update={
            "maximum_absolute_error": worst,
            "absolute_tolerance": tolerance(worst, [samples["probabilities.probabilities"]]),
            "relative_tolerance": 0.0,
            "details": {
                "calibration_agreement": float(same),
                "speed_up": single_image_seconds(plain) / single_image_seconds(small),
            },
        }
    )
    variant = Graph(file=small.name, precision="int8", agreement=agreement)
    exported[place] = replace(
        done,
        entry=done.entry.model_copy(update={"variants": (variant,)}),
        checked=replace(done.checked, samples=samples),
    )


def _classes(graph: Path, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    run = GraphRunner(graph)
    parts = [
        run({"image": pictures[start : start + BATCH]})["probabilities"].argmax(1)
        for start in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts)
