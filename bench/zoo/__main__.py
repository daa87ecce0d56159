"""Try the collection: ``python -m bench.zoo [NAME ...] [--again]``.

Results are kept in ``bench/zoo/results.json`` and not tried again unless asked. Then the tables are
written. On a busy machine give more ``--patience``: too long is by the clock.
"""

import argparse
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
SECONDS = 1000  # of silence; a function has a limit of its own, below that


def main() -> None:
    """Try what is named, or everything that has no result yet."""
    from bench.zoo.models import MODELS
    from bench.zoo.tables import write
    from bench.zoo.torchvision_models import CLASSIFIERS

    parser = argparse.ArgumentParser(prog="python -m bench.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--again", action="store_true", help="try what has a result, too")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    parser.add_argument("--patience", type=float, default=1.0, help="times the usual limits")
    options = parser.parse_args()
    known = [*(model.name for model in MODELS), *CLASSIFIERS]
    wanted = [] if options.tables else options.names or known
    waiting = [name for name in wanted if options.again or name not in read(RESULTS)]
    while waiting:
        waiting = _try(waiting, options.patience)
    write(read(RESULTS))


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What became of each model's functions, by model."""
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _keep(name: str, results: list[dict[str, Any]]) -> None:
    found = {**read(RESULTS), name: results}
    RESULTS.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def _try(names: list[str], patience: float) -> list[str]:
    """Try models in one process (PyTorch takes long to import); returns those still to be tried.

    The process prints a line of JSON for every function, and an empty one after each model. One
    that is silent for too long is killed, and the model it was at counts as too long.
    """
    command = [sys.executable, "-W", "ignore", "-m", "bench.zoo.attempt", str(patience), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = _lines(process, SECONDS * patience)
        for place, name in enumerate(names):
            results, whole = [], False
            for line in lines:
                if line.startswith("{"):
                    results.append(json.loads(line))
                    print(
                        f"{name}, {results[-1]['function']}: {results[-1]['outcome']}", flush=True
                    )
                elif line == "\n":
                    whole = True
                    break
            if not whole:
                kind = "too long" if process.poll() is None else "crashed"
                results.append(
                    {"model": name, "function": "the rest", "outcome": kind, "kind": kind}
                )
            _keep(name, results)
            if not whole:
                process.kill()
                return names[place + 1 :]
    return []


def _lines(process: subprocess.Popen[str], seconds: float) -> Iterator[str]:
    """Lines as they come; ends where none came for that long."""
    stream = process.stdout
    assert stream is not None
    while select.select([stream], [], [], seconds)[0]:
        line = stream.readline()
        if not line:
            return
        yield line


if __name__ == "__main__":
    main()
