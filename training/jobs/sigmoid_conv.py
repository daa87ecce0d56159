"""Publish every gradient of a sigmoid convolution's loss, derived, exported and checked three ways.

    python -m training sigmoid-conv [--seed 0]

Nothing is trained: input, kernel, weights and label all come with the request.
"""

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contract.manifest import Data, SigmoidConvManifest
from contract.remote import open_draft
from training import options
from training.errors import JobError
from training.networks.sigmoid_conv import INPUTS, OUTPUTS, SigmoidConv, loss_gradient
from training.provenance import training_record
from training.publish import report, sigmoid_conv_report
from training.publish.agreement import GraphRunner, Tolerances
from training.publish.export import export_function
from training.publish.parameters import summarise
from training.publish.sigmoid_conv_checks import (
    Sample,
    by_autograd,
    central_differences,
    closed_form,
)

MODEL = "sigmoid-conv"
SAMPLES = 64
SHAPES = {"x": (4, 4), "kernel": (3, 3), "weights": (4,), "label": ()}
EXACT = 1e-12  # closed form and autograd differ from the graph by rounding only
APPROXIMATE = 1e-7  # central differences also by their own truncation

Array = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m training sigmoid-conv``."""
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="for the samples it is checked on"
    )


def run(arguments: argparse.Namespace) -> None:
    """Export, check, publish. Raises JobError, and then nothing is published."""
    started = time.monotonic()
    given = draw_samples(arguments.seed)
    with open_draft(arguments.artifacts, MODEL) as draft:
        function, arrays = export_function(
            loss_gradient,
            {name: torch.from_numpy(given[name]) for name in INPUTS},
            OUTPUTS,
            draft.folder,
            "loss_gradient",
            tolerances=Tolerances(absolute=1e-12, relative=1e-9),
        )
        checks = check(draft.folder / function.graph.file, given)
        for means, difference in checks.items():
            print(f"loss_gradient against {means}: largest difference {difference:.1e}")
        network = example_network()
        drawn = b"".join(given[name].tobytes() for name in INPUTS)
        manifest = SigmoidConvManifest(
            **draft.header,
            functions={"loss_gradient": function},
            parameters=summarise(network, torch.zeros(1, 1, 4, 4, dtype=torch.float64)),
            data=Data(
                name=f"random samples, seed {arguments.seed}",
                sha256=hashlib.sha256(drawn).hexdigest(),
                rows=SAMPLES,
                splits={"check": SAMPLES},
            ),
            training=training_record(
                {}, seed=arguments.seed, epochs=0, wall_seconds=time.monotonic() - started
            ),
            metrics={"largest_difference": {**checks}},
        )
        results = closed_form(sigmoid_conv_report.EXAMPLE)
        sigmoid_conv_report.draw(draft.folder / "gradients.png", results)
        text = sigmoid_conv_report.text(manifest, results, checks)
        report.write_report(draft.folder, text)
        report.write_checkpoint(draft.folder, network)
        report.write_samples(draft.folder, manifest.functions, arrays)
        report.write_metrics(draft.folder, manifest.metrics)
        draft.publish(manifest)
        print(f"published {draft.published}")


def draw_samples(seed: int) -> dict[str, Array]:
    """``SAMPLES`` standard normal inputs of ``loss_gradient``, batch first."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=(SAMPLES, *shape)) for name, shape in SHAPES.items()}


def check(graph: Path, given: dict[str, Array]) -> dict[str, float]:
    """Largest differences of the exported graph from the three other means.

    Raises JobError naming the output, if one is larger than rounding explains.
    """
    run = GraphRunner(graph)

    def loss(sample: Sample) -> float:
        batch = {name: array[np.newaxis] for name, array in sample.items()}
        return float(run(batch)["loss"][0])

    found = run(given)
    worst = {"closed form": 0.0, "autograd": 0.0, "central differences": 0.0}
    for index in range(SAMPLES):
        sample = {name: array[index] for name, array in given.items()}
        by_means = {
            "closed form": (closed_form(sample), EXACT),
            "autograd": (by_autograd(sample), EXACT),
            "central differences": (central_differences(sample, loss), APPROXIMATE),
        }
        for means, (expected, tolerance) in by_means.items():
            for name, value in expected.items():
                difference = float(np.abs(found[name][index] - value).max())
                scale = max(1.0, float(np.abs(value).max()))
                if not difference <= tolerance * scale:
                    raise JobError(
                        f"loss_gradient: {name} differs from {means} by {difference:.3g} "
                        f"at sample {index}; nothing was published"
                    )
                worst[means] = max(worst[means], difference)
    return worst


def example_network() -> SigmoidConv:
    """The network with the parameters of the report's worked example."""
    network = SigmoidConv()
    example = sigmoid_conv_report.EXAMPLE
    with torch.no_grad():
        network.convolution.weight.copy_(torch.from_numpy(example["kernel"]).reshape(1, 1, 3, 3))
        network.dense.weight.copy_(torch.from_numpy(example["weights"]).reshape(1, 4))
    return network
