"""How well a classifier's ``familiar`` tells its own kinds of pictures from others.

    python -m bench.familiarity cifar-fast --images cifar10.zip [--artifacts DIR] [--count 1000]

AUROC: the chance that a test image is more familiar than a picture of another kind (a half for
equals), so that 50 % is guessing. The other kinds are those of ``bench.strangers``. The last column
is the share of pictures that have less than 0.05, which one in twenty validation images has. Last
comes what telling it costs: each graph's time with and without that output, in turn, on one
thread. Needs bench/requirements-familiarity.txt and the project's extra ``training``.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from contract.signatures import FAMILIAR, classifier
from contract.store import Artifact, newest_good
from training.data.images import load_images

Array = NDArray[np.generic]
BATCH = 100
UNFAMILIAR = 0.05
ROUNDS, RUNS = 40, 25


def auroc(own: Array, others: Array) -> float:
    """The chance that one of ``own`` is larger than one of ``others``; a half where equal."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    return float(below.mean() / 2 / len(others))


def session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The graph as a worker of the service runs it: on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


def without(graph: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """A copy that doesn't give ``output``, without the nodes that only that needed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    outputs = [entry for entry in graph.graph.output if entry.name != output]
    needed = {entry.name for entry in outputs}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.graph.node):  # they are in the order of their computation
        if not needed.isdisjoint(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    del copy.graph.output[:], copy.graph.node[:]
    copy.graph.output.extend(outputs)
    copy.graph.node.extend(nodes)
    return copy


def cost(graph: onnx.ModelProto, image: Array) -> tuple[float, float]:
    """Processor seconds of one image with and without ``familiar``: medians of rounds in turn."""
    sessions = [session(graph), session(without(graph, FAMILIAR))]
    feed = {graph.graph.input[0].name: image[:1]}
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for each, seconds in zip(sessions, times, strict=True):
            started = time.process_time()
            for _ in range(RUNS):
                each.run(None, feed)
            seconds.append((time.process_time() - started) / RUNS)
    with_it, without_it = (float(np.median(seconds)) for seconds in times)
    return with_it, without_it


def familiar(graph: onnx.ModelProto, images: Array) -> Array:
    """What ``graph`` says of uint8 [n, side, side, 3]."""
    running, name = session(graph), graph.graph.input[0].name
    parts = np.split(images, range(BATCH, len(images), BATCH))
    return np.concatenate([running.run([FAMILIAR], {name: part})[0] for part in parts])


def tell(artifact: Artifact, images: Path, count: int) -> None:
    """Print the tables."""
    from bench.strangers import strangers

    data = load_images(images)
    test = data.test.images.permute(0, 2, 3, 1).contiguous().numpy()
    function = artifact.manifest.functions["probabilities"]
    graphs = {
        graph.precision: onnx.load_from_string(artifact.read(graph.file))
        for graph in (function.graph, *function.variants)
    }
    own = {name: familiar(graph, test) for name, graph in graphs.items()}
    rows: dict[str, list[float]] = {name: [] for name in graphs}
    manifest = artifact.manifest
    print(f"{manifest.model} version {manifest.version}, {len(test):,} test images\n")
    heads = " | ".join(f"AUROC, {name}" for name in graphs)
    print(f"| kind | pictures | {heads} | under {UNFAMILIAR} |")
    print(f"|---|---:|{'---:|' * len(rows)}---:|")
    for kind, pictures in strangers(count, test):
        found = {name: familiar(graph, pictures) for name, graph in graphs.items()}
        for name in graphs:
            rows[name].append(auroc(own[name], found[name]))
        figures = " | ".join(f"{rows[name][-1]:.1%}" for name in graphs)
        under = (found["fp32"] < UNFAMILIAR).mean()
        print(f"| {kind} | {len(pictures):,} | {figures} | {under:.0%} |", flush=True)
    means = " | ".join(f"**{np.mean(values):.1%}**" for values in rows.values())
    worst = " | ".join(f"{min(values):.1%}" for values in rows.values())
    under = (own["fp32"] < UNFAMILIAR).mean()
    print(f"| mean of the kinds | | {means} | |\n| worst | | {worst} | |")
    empty = " | " * len(rows)
    print(f"| test images themselves | {len(test):,} | {empty}{under:.0%} |\n")
    for name, graph in graphs.items():
        with_it, without_it = cost(graph, test)
        print(
            f"{name}: {with_it * 1e3:.3f} ms an image with it, {without_it * 1e3:.3f} ms without: "
            f"{with_it / without_it - 1:+.1%}"
        )


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="such as cifar-fast")
    parser.add_argument("--images", type=Path, required=True, help="what it was trained with")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--count", type=int, default=1000, help="pictures of each kind")
    arguments = parser.parse_args()
    artifact, _ = newest_good(arguments.artifacts, arguments.model)
    if classifier(artifact.manifest).familiar is None:
        parser.error(f"{arguments.model} was published without {FAMILIAR}; train it again")
    tell(artifact, arguments.images, arguments.count)


if __name__ == "__main__":
    main()
