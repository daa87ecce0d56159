"""The side-by-side benchmark: ``python -m bench.run [--quick]``, or ``make bench``.

Every server in turn gets the same cores, the same graph and checkpoint, the same requests. All of
it happens on the loopback address, every load is bounded, and whatever is started is stopped.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import floors, overload, pictures, report
from bench.load import wrk_path
from bench.machine import describe
from bench.measure import ROOT, Beside, Outcome, Serving, cores, measure
from bench.plan import (
    FULL,
    MANY_X,
    QUICK,
    SHORTEN_AFTER,
    Plan,
    beside_steps,
    steps_of,
)
from bench.servers import FLOOR, SERVERS, Server
from bench.subjects import (
    Graph,
    Question,
    by_another_model,
    graph,
    newest,
    picture_questions,
)

RESULTS = ROOT / "bench" / "results"
README = ROOT / "bench" / "README.md"


def main() -> None:
    """Measure, print the report, write it to README.md and the raw numbers to results/."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    wrk_path()
    plan = (QUICK if options.quick else FULL).shortened(options.seconds)
    used = cores(options.cores)
    artifacts = Path(options.artifacts).resolve()
    classifier = graph(newest(artifacts, options.classifier), "probabilities", options.precision)
    derivative = graph(newest(artifacts, "curve-mlp"), "gradient")
    faster = _faster(options, artifacts)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gradserve-bench-") as folder:
        scratch = Path(folder)
        apart = scratch / "beside"
        apart.mkdir()
        environment = {
            "BENCH_CLASSIFIER": str(classifier.artifact.folder),
            "BENCH_CLASSIFIER_GRAPH": str(classifier.file),
            "BENCH_CURVE": str(derivative.artifact.folder),
            "BENCH_CURVE_GRAPH": str(derivative.file),
            "BENCH_WORKERS": str(len(used)),
            "BENCH_SCRATCH": str(scratch),
            "GRADSERVE_ARTIFACTS": str(artifacts),
            "GRADSERVE_ACCESS_LOG": "false",
            "GRADSERVE_PRECISION": "auto" if classifier.precision == "int8" else "fp32",
            # No server reports to its makers, or keeps anything in the home folder.
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(scratch / "bentoml"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        substitutes = {"workers": str(len(used)), "classifier": options.classifier}
        curves = []
        if plan.overload_seconds:
            (dense,) = picture_questions(classifier, (pictures.DENSE,), scratch).values()
            curves = _curves(options, plan, dense, substitutes, environment, scratch)
        if options.overload_only:
            print(report.curves(curves))
            return
        questions = picture_questions(classifier, tuple(plan.seconds), scratch)
        fast = by_another_model(questions[pictures.CIFAR_SIZE], faster) if faster else None
        _say("the floors: model, decoding, JSON")
        entry = classifier.artifact.manifest.functions["probabilities"]
        floor = floors.measure(
            floors.Request(
                classifiers={
                    candidate.precision: str(classifier.artifact.folder / candidate.file)
                    for candidate in (entry.graph, *entry.variants)
                },
                derivative=str(derivative.file),
                pictures={p.name: str(q.source) for p, q in questions.items()},
                seconds=plan.floor_seconds,
            ),
            environment,
        )
        outcomes = []
        for server in _chosen(options):
            _say(f"{server.endpoint}: {server.name} ({server.role})")
            if time.monotonic() - began > SHORTEN_AFTER:
                plan = plan.shortened(1)
            steps = steps_of(plan, server, questions, fast, derivative, scratch)
            with ExitStack() as stack:
                beside = None
                if plan.beside_seconds and server.role != "ours":
                    own = next(
                        s for s in SERVERS if s.role == "ours" and s.endpoint == server.endpoint
                    )
                    # Held against model servers on the same graph alone: others take time, too.
                    also = fast if server.role == "same graph" else None
                    steps_of_own = steps_of(plan, own, questions, also, derivative, apart)
                    compared = beside_steps(plan, steps_of_own)
                    serving = Serving(own, substitutes, environment, apart)
                    beside = stack.enter_context(Beside(serving, compared))
                outcome = measure(server, steps, substitutes, environment, scratch, beside)
            outcomes.append(outcome)
            _say(f"  {report.one_line(outcome)}")
            if server.role == "ours" and outcome.failure is None and server.endpoint == "gradient":
                many = next(
                    step.question for step in steps if step.question.name == f"{MANY_X:,} x"
                )
                floor["json_ms"] = floors.json_ms(
                    many.source.read_bytes(), outcome.answers[many.name]
                )
    measured = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "quick": options.quick,
        "seconds": time.monotonic() - began,
        "machine": describe(len(used)),
        "classifier": _subject(classifier),
        "faster": _subject(faster) if faster else None,
        "derivative": _subject(derivative),
        "floors": floor,
        "outcomes": [_plain(outcome) for outcome in outcomes],
        "overload": curves,
    }
    _publish(measured, readme=not (options.only or options.seconds or options.no_readme))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer servers, shorter loads")
    parser.add_argument("--only", help="only servers whose name contains one of these, a,b,c")
    parser.add_argument("--seconds", type=float, help="at most so long each load, for a trial")
    parser.add_argument("--overload-only", action="store_true", help="overload, and nothing else")
    parser.add_argument("--no-readme", action="store_true", help="leave bench/README.md as it is")
    parser.add_argument("--cores", type=int, default=2, help="cores used by all, wrk included")
    parser.add_argument("--artifacts", default=str(ROOT / "artifacts"), help="what to serve")
    parser.add_argument("--classifier", default="cifar-improved", help="which image model")
    parser.add_argument(
        "--faster",
        default="cifar-fast",
        help="another image model, which ours also serves, held against the peers' --classifier",
    )
    parser.add_argument("--precision", choices=["auto", "fp32"], default="auto")
    return parser.parse_args()


def _faster(options: argparse.Namespace, artifacts: Path) -> Graph | None:
    """The graph of our faster network, if one is to be measured."""
    if options.faster in ("", options.classifier):
        return None
    return graph(newest(artifacts, options.faster), "probabilities", options.precision)


def _curves(
    options: argparse.Namespace,
    plan: Plan,
    question: Question,
    substitutes: dict[str, str],
    environment: dict[str, str],
    scratch: Path,
) -> list[dict[str, Any]]:
    """What each server gives under overload."""
    curves = []
    for server in filter(overload.compared, _chosen(options)):
        _say(f"overload: {server.name} ({server.role})")
        seconds = plan.overload_seconds
        found = overload.curve(server, question, seconds, substitutes, environment, scratch)
        curves.append(asdict(found))
    return curves


def _chosen(options: argparse.Namespace) -> list[Server]:
    servers = [FLOOR, *(s for s in SERVERS if s.quick or not options.quick)]
    if options.only:
        wanted = options.only.lower().split(",")
        servers = [s for s in servers if any(part in s.name.lower() for part in wanted)]
    return servers


def _subject(served: Any) -> dict[str, Any]:
    manifest = served.artifact.manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "precision": served.precision,
        "multiply_adds": manifest.parameters.multiply_adds,
    }


def _plain(outcome: Outcome) -> dict[str, Any]:
    plain = asdict(outcome)
    del plain["answers"]  # megabytes, and right: that was checked
    return plain


def _publish(measured: dict[str, Any], readme: bool) -> None:
    RESULTS.mkdir(exist_ok=True)
    stamp = measured["date"].replace(":", "").replace("+0000", "Z")
    raw = RESULTS / f"{stamp}{'-quick' if measured['quick'] else ''}.json"
    raw.write_text(json.dumps(measured, indent=1) + "\n")
    # Read back, so that a fresh report and one made later from the file are the same.
    text = report.markdown(json.loads(raw.read_text()))
    print(text)
    print(f"\nRaw numbers: {os.path.relpath(raw)}")
    if readme:
        report.insert(README, text)
        print(f"Table written to {os.path.relpath(README)}")


def _say(text: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
