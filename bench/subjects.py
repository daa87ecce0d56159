"""What is served and what is sent: the artifacts, and request bodies with their right answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from bench import pictures
from bench.load import Body
from bench.peers.model import to_pixels
from contract.errors import ArtifactError
from contract.store import Artifact, newest_good

BOUNDARY = "gradserve-bench-7d1b3c0a"


@dataclass(frozen=True)
class Graph:
    """One ONNX file of a published version."""

    artifact: Artifact
    file: Path
    precision: str


@dataclass(frozen=True)
class Question:
    """A request body with its right answer: a top-1 index, derivatives, or None if any will do.

    ``source`` is the picture or the JSON itself. ``path`` is where it is asked, if not where the
    server's other questions are; ``against`` names the peers' question that ours is held against,
    if not the one of the same name.
    """

    name: str
    body: Body
    source: Path
    expected: Any
    path: str | None = None
    against: str | None = None


def newest(root: Path, model: str) -> Artifact:
    """The newest good version. Raises SystemExit with what to do if there is none."""
    try:
        artifact, _ = newest_good(root, model)
    except ArtifactError as error:
        raise SystemExit(f"The benchmark has nothing to serve: {error}") from None
    return artifact


def graph(artifact: Artifact, function: str, precision: str = "auto") -> Graph:
    """The graph of a function that is compared: int8 where there is one, unless fp32 is asked."""
    entry = artifact.manifest.functions[function]
    candidates = [*entry.variants, entry.graph] if precision == "auto" else [entry.graph]
    chosen = next((c for c in candidates if c.precision == "int8"), entry.graph)
    return Graph(artifact, artifact.folder / chosen.file, chosen.precision)


def picture_questions(
    classifier: Graph, kinds: tuple[pictures.Picture, ...], folder: Path
) -> dict[pictures.Picture, Question]:
    """One multipart upload for each kind of picture, written to ``folder``."""
    session = onnxruntime.InferenceSession(classifier.file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def probabilities(image: Image.Image) -> Any:
        return session.run(None, {name: to_pixels(image)[None]})[0][0]

    questions = {}
    for number, kind in enumerate(kinds):
        seed = pictures.clearest_seed(kind, lambda image: float(probabilities(image).max()))
        content = pictures.encode(kind, seed)
        source = folder / f"{number}.{kind.format.lower()}"
        source.write_bytes(content)
        file = folder / f"{number}.multipart"
        media_type = f"image/{kind.format.lower()}"
        file.write_bytes(multipart(content, f"picture.{kind.format.lower()}", media_type))
        with Image.open(source) as image:
            expected = int(probabilities(image).argmax())
        body = Body(file, f"multipart/form-data; boundary={BOUNDARY}")
        questions[kind] = Question(kind.name, body, source, expected)
    return questions


def by_another_model(question: Question, classifier: Graph) -> Question:
    """The same picture, classified by another of our models, against peers that serve the first."""
    expected = _top_1(classifier, question.source)
    model = classifier.artifact.manifest.model
    return replace(
        question,
        name=f"{question.name}, by {model}",
        expected=expected,
        path=f"/classify?model={model}",
        against=question.name,
    )


def _top_1(classifier: Graph, file: Path) -> int:
    session = onnxruntime.InferenceSession(classifier.file, providers=["CPUExecutionProvider"])
    with Image.open(file) as image:
        (probabilities,) = session.run(
            ["probabilities"], {session.get_inputs()[0].name: to_pixels(image)[None]}
        )
    return int(probabilities[0].argmax())


def many_pictures(single: Question, count: int, file: Path) -> Question:
    """The same picture ``count`` times in one request."""
    part = multipart(single.source.read_bytes(), "picture.png", "image/png")
    end = f"--{BOUNDARY}--\r\n".encode()
    content = part.removesuffix(end) * count + end
    file.write_bytes(content)
    name = f"{count} images in a request"
    return Question(name, Body(file, single.body.content_type), single.source, single.expected)


def point_question(
    derivative: Graph, count: int, shape: Callable[[list[float]], Any], file: Path
) -> Question:
    """A request for f′ at ``count`` points of the domain, in the JSON that ``shape`` makes."""
    low, high = derivative.artifact.manifest.domain
    x = np.linspace(low, high, count)
    session = onnxruntime.InferenceSession(derivative.file, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0].tolist()
    content = json.dumps(shape(x.tolist())).encode()
    file.write_bytes(content)
    return Question(f"{count:,} x", Body(file, "application/json"), file, expected)


def multipart(content: bytes, name: str, media_type: str) -> bytes:
    """A form with one file, in a field named ``file`` (RFC 7578)."""
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def right(found: Any, expected: Any) -> bool:
    """Whether an answer is the expected one; derivatives may differ by rounding."""
    if expected is None:
        return True
    if isinstance(expected, int):
        return bool(found == expected)
    return len(found) == len(expected) and bool(np.allclose(found, expected, rtol=1e-6, atol=1e-9))
