"""The documents' requests and answers: found, run against a server, compared or written anew.

    python -m tests.end_to_end.readme_examples --update

starts the service from ``artifacts/``, runs every request, and puts today's answers into README.md
and docs/api.md.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "docs" / "api.md", ROOT / "docs" / "functions.md")
ARTIFACTS = ROOT / "artifacts"
ADDRESS = "http://127.0.0.1:8000"  # the one that README's commands name
LEFT_OUT = "…"
WIDTH = 96
LONGEST_LIST = 16
# Numbers may differ in the seventh digit, as processors round differently; what an int8 graph
# says may by more, as some processors lack the instructions that it is best run with. A map's small
# values are sums of larger ones.
TOLERANCE = {"probability": 0.05, "familiar": 0.05, "map": 1e-7}
# One block: "$ curl …" or "$ python …", on one line or more, and the JSON object that it answers.
BLOCK = re.compile(r"```console\n\$ ((?:curl|python) .*?)\n(\{.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A request as a shell command, and the answer that README gives."""

    command: str
    answer: str


def read_examples() -> list[Example]:
    """The documents' examples in their order, each once."""
    texts = [path.read_text("utf-8") for path in DOCUMENTS]
    found = [Example(*match.groups()) for text in texts for match in BLOCK.finditer(text)]
    return list(dict.fromkeys(found))


def run(example: Example, address: str) -> Any:
    """Run the command in a shell, against ``address``; what README would show of its answer."""
    command = re.sub("^python ", f"{sys.executable} ", example.command.replace(ADDRESS, address))
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"no JSON from: {command}\n{done.stdout.decode()[:500]}") from None
    assert not isinstance(answer.get("status"), int), f"{command}\n{answer}"  # a problem
    return shorten(answer, json.loads(example.answer))


def shorten(value: Any, shown: Any = None) -> Any:
    """What README shows of a value: long texts and lists end in an ellipsis.

    Where what it shows now has a key ``…``, it keeps to the keys that are there; in a list, to
    those of the first item.
    """
    match value:
        case str() if len(value) > 100:
            return value[:60] + LEFT_OUT
        case list():
            first = shown[0] if isinstance(shown, list) and shown else None
            items = [shorten(item, first) for item in value[:LONGEST_LIST]]
            return items if len(value) <= LONGEST_LIST else [*items[:3], LEFT_OUT]
        case dict():
            shown = shown if isinstance(shown, dict) else {}
            kept = {
                key: shorten(item, shown.get(key))
                for key, item in value.items()
                if LEFT_OUT not in shown or key in shown
            }
            return kept | {key: LEFT_OUT for key in shown if key == LEFT_OUT}
    return value


def show(value: Any, indent: int = 0) -> str:
    """JSON on one line where it fits, otherwise an item a line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, list):
        items = [show(item, indent + 2) for item in value]
        return "[\n" + ",\n".join(inner + item for item in items) + f"\n{outer}]"
    items = [f"{show(key)}: {show(item, indent + 2)}" for key, item in value.items()]
    return "{\n" + ",\n".join(inner + item for item in items) + f"\n{outer}}}"


def differences(expected: Any, actual: Any, where: str = "answer") -> list[str]:
    """Where two answers differ by more than the tolerance; empty if nowhere."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return [f"{where} has {sorted(actual)}, README {sorted(expected)}"]
        pairs = [(expected[key], actual[key], f"{where}.{key}") for key in expected]
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return [f"{where} has {len(actual)} items, README {len(expected)}"]
        both = zip(expected, actual, strict=True)
        pairs = [(*pair, f"{where}[{index}]") for index, pair in enumerate(both)]
    else:
        tolerance = TOLERANCE.get(where.rpartition(".")[2].partition("[")[0], 1e-9)
        same = expected == actual or (
            isinstance(expected, float)
            and isinstance(actual, float)
            and math.isclose(expected, actual, rel_tol=1e-6, abs_tol=tolerance)
        )
        return [] if same else [f"{where} is {actual!r}, README says {expected!r}"]
    return [difference for pair in pairs for difference in differences(*pair)]


def versions(examples: list[Example]) -> dict[str, int]:
    """The models, each in its version, that gave README's answers: what it shows of /models."""
    answer = next(e.answer for e in examples if e.command.endswith("/models"))
    return {item["model"]: item["version"] for item in json.loads(answer)["models"]}


@contextmanager
def serving() -> Iterator[str]:
    """The service from ``artifacts/`` on a free port; gives its address when it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "artifacts"
        root.symlink_to(ARTIFACTS)
        with ServerProcess(root) as server:
            server.wait_ready()
            yield f"http://127.0.0.1:{server.port}"


def update() -> None:
    """Run every example and write the answers into the documents."""
    texts = {path: path.read_text("utf-8") for path in DOCUMENTS}
    with serving() as address:
        for example in read_examples():
            try:
                answer = show(run(example, address))
            except AssertionError as error:
                print(f"left as it was: {error}", file=sys.stderr)
                continue
            old = f"$ {example.command}\n{example.answer}```"
            new = f"$ {example.command}\n{answer}\n```"
            texts = {path: text.replace(old, new) for path, text in texts.items()}
    for path, text in texts.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the README's requests.")
    parser.add_argument("--update", action="store_true", help="write today's answers")
    if parser.parse_args().update:
        update()
    else:
        with serving() as server:
            for shown in read_examples():
                print(f"$ {shown.command}\n{show(run(shown, server))}\n")
