"""What Ray Serve costs: the application under it, beside ``gradserve serve``, at 1 to 4 replicas.

    make bench-ray                          # on an idle machine: some twenty minutes
    make bench-ray ARGS="--replicas 1,2 --slices 2"

Both run on the same cores with as many processes that answer: a replica each there, a worker each
here. wrk loads one and then the other, in slices; the one that isn't loaded is stopped (SIGSTOP)
meanwhile, since Ray's processes are busy when nobody asks. The ratios are of slices side by side,
and of processor time, which holds on a busy machine too.

Ray is measured as it is by default, and with the two switches of its guide to high throughput.

Needs the extra ``ray``, whose environment the target makes, and wrk. ``--write`` puts the table
into bench/README.md, from where ``python -m bench.capacity --write`` takes it for docs/scaling.md.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import pictures, report
from bench.load import wrk_path
from bench.machine import describe
from bench.measure import ROOT, Serving, cores
from bench.servers import SERVERS, Server
from bench.subjects import Question, graph, newest, picture_questions, point_question
from bench.turns import Load, Rates, in_turn

README = ROOT / "bench" / "README.md"
BEGIN, END = "<!-- ray serve: written by make bench-ray -->", "<!-- end of ray serve -->"
HEADER = (
    "| request | Ray | replicas | ours, req/s | its, req/s | ours ÷ its | ours, a core's ms "
    "| its, a core's ms | its ÷ ours | ours, p99 ms | its, p99 ms |"
)
CONNECTIONS = 16
CLASSIFIER = "cifar-improved"
# The switches that Ray's guide to high throughput names.
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
VARIANTS = {"default": {}, "HAProxy": HAPROXY}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def main() -> None:
    """Print the table; with ``--write`` put it into README.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.ray_serve")
    parser.add_argument("--replicas", default="1,2,3,4", help="how many, by default 1,2,3,4")
    parser.add_argument("--slices", type=int, default=5, help="of each server that count, 5")
    parser.add_argument("--seconds", type=float, default=3, help="of a slice, 3")
    parser.add_argument("--cores", type=int, default=2, help="for servers and wrk together, 2")
    parser.add_argument(
        "--ray", default=",".join(VARIANTS), help=f"by default {','.join(VARIANTS)}"
    )
    parser.add_argument("--note", default="", help="to stand beside the table")
    parser.add_argument("--write", action="store_true", help="into bench/README.md")
    options = parser.parse_args()
    wrk_path()
    used = len(cores(options.cores))
    lines = []
    with tempfile.TemporaryDirectory(prefix="ray-") as name:  # short: Ray's sockets lie in it
        folder = Path(name)
        questions = _questions(folder)
        for variant in options.ray.split(","):
            for replicas in map(int, options.replicas.split(",")):
                scratch = folder / f"{variant[0]}{replicas}"
                scratch.mkdir()
                for request, rates in compare(variant, replicas, questions, options, scratch):
                    lines.append(row(request, variant, replicas, rates))
                    print(lines[-1], flush=True)
        lines.sort(key=lambda line: line.split(" | ")[0])
    machine = describe(used)
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}, {machine['cpu']}, "
        f"{used} of {machine['cores']} cores for both and wrk, Ray {machine['versions']['ray']}, "
        f"{CONNECTIONS} connections, {options.slices} slices of {options.seconds:g} s, "
        f"load average {machine['load_average']:.1f}. {options.note}".strip()
        + "\n\n" + HEADER + "\n" + "|---" * (HEADER.count("|") - 1) + "|\n" + "\n".join(lines)
    )  # fmt: skip
    print(text)
    if options.write:
        report.insert(README, text, BEGIN, END)


def _questions(folder: Path) -> list[tuple[str, Question]]:
    """Where each question is asked, and the question."""
    artifacts = ROOT / "artifacts"
    derivative = graph(newest(artifacts, "curve-mlp"), "gradient")
    several = point_question(derivative, 3, lambda x: {"x": x}, folder / "points.json")
    classifier = graph(newest(artifacts, CLASSIFIER), "probabilities")
    (small,) = picture_questions(classifier, (pictures.CIFAR_SIZE,), folder).values()
    return [("/gradient", several), (f"/classify?model={CLASSIFIER}", small)]


def compare(
    variant: str, replicas: int, questions: Sequence[tuple[str, Question]],
    options: argparse.Namespace, folder: Path,
) -> list[tuple[str, Rates]]:  # fmt: skip
    """Both servers with so many replicas, each question asked of both in turn."""
    own = next(each for each in SERVERS if each.role == "ours" and each.endpoint == "gradient")
    ray = Server(
        "gradserve on Ray Serve",
        "gradient",
        "same graph",
        ("{python}", "-m", "bench.peers.ray_gradserve", "{workers}", "{port}", str(folder)),
        own.found,
        QUIET | VARIANTS[variant],
        path=own.path,
    )
    environment = {
        "GRADSERVE_ARTIFACTS": str(ROOT / "artifacts"),
        "GRADSERVE_ACCESS_LOG": "false",
        "OMP_NUM_THREADS": "1",
    }
    substitutes = {"workers": str(replicas)}
    found = []
    with ExitStack() as stack:
        servings = []
        for name, server in (("ours", own), ("ray", ray)):
            scratch = folder / name
            scratch.mkdir()
            serving = stack.enter_context(Serving(server, substitutes, environment, scratch))
            serving.wait_until_right(questions[0][1])
            servings.append(serving)
        for path, question in questions:
            loads = [Load(each.running, f"http://127.0.0.1:{each.port}{path}") for each in servings]
            rates = in_turn(
                (loads[0], loads[1]), question.body, CONNECTIONS, options.slices, options.seconds,
                pause_others=True,
            )  # fmt: skip
            found.append((f"{path.partition('?')[0]}, {question.name.partition(',')[0]}", rates))
    return found


def row(request: str, variant: str, replicas: int, rates: Rates) -> str:
    """A line of the table."""
    cells = [
        request,
        variant,
        str(replicas),
        *(f"{rate:,.0f}" for rate in rates.requests_per_s),
        f"{rates.faster:.2f}",
        *(f"{1000 * seconds:.3f}" for seconds in rates.core_seconds),
        f"{rates.cheaper:.2f}",
        *(f"{milliseconds:.1f}" for milliseconds in rates.p99_ms),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
