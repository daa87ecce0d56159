"""From a version folder to a model that answers.

``verify_version`` checks, loads and replays; that may take long and much memory, so it runs in a
process of its own. ``load`` makes the model that serves, by the verdict.
"""

import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from contract import signatures
from contract.errors import ArtifactError, ManifestInvalid
from contract.manifest import AnyManifest, CommonManifest, Function, Graph, Tensor
from contract.signatures import ROWS, Classifier, Curve, WrongSignature
from contract.store import MANIFEST_FILE, Artifact, open_version, verify
from service.runtime.session import (
    QUICK_SECONDS,
    Array,
    GraphError,
    Session,
    check_graph,
    replay,
)

SAMPLES_FILE = "samples.npz"

# One run takes at most so many rows, so many numbers (inputs and outputs together) and so long, as
# its samples tell: a network's intermediate results then stay in the caches, memory stays bounded,
# and others get their turn. That makes 2,048 x of a curve, 8 images, one saliency map.
RUN_ROWS = 2048
RUN_NUMBERS = 25_000
RUN_SECONDS = 0.05
MAX_NUMBERS = 1_000_000  # of an answer
# Of several graphs that agree, one serves in place of the first if it takes at most this part of
# its time, and saves at least this much.
CLEARLY = 0.8
LEAST_GAIN_SECONDS = 5e-5
TIMED_RUNS = 7
MORE_RUNS = 3
# What is estimated to take no longer than this isn't worth waiting for its turn. With 0.001 the
# shipped networks ran at once, between the reading of two requests, and served 14 to 26 % less.
AT_ONCE_SECONDS = 0.0001

Interface = TypeVar("Interface")


class Options(Protocol):
    """How graphs are run; the service's settings are such."""

    @property
    def precision(self) -> str:
        """auto or fp32."""

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers, best first."""

    @property
    def session_threads(self) -> int:
        """Threads of one session."""


class GraphRefused(ArtifactError):
    """A graph does not load here, or does not give the answers that PyTorch gave."""


@dataclass(frozen=True)
class LoadedFunction:
    """A function in service: the session chosen for it, and why a variant was not.

    ``number_seconds`` is what its samples took for each number in and out: an estimate.
    """

    function: Function
    session: Session
    graph: Graph
    refused: tuple[str, ...] = ()
    number_seconds: float = 0.0

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What it gives."""
        return self.function.outputs

    @cached_property
    def independent(self) -> bool:
        """May a run take some of the rows?"""
        return signatures.rows_are_independent(self.function)

    @cached_property
    def with_rows(self) -> tuple[bool, ...]:
        """For each input: is its first dimension that of the rows?"""
        return tuple(tensor.shape[:1] == (ROWS,) for tensor in self.function.inputs)

    @cached_property
    def fixed_work(self) -> tuple[int, int] | None:
        """``work`` where no size but the number of rows is chosen by the caller, else None."""
        names = {
            size
            for tensor in (*self.function.inputs, *self.function.outputs)
            for size in tensor.shape
            if isinstance(size, str)
        }
        return self._count({ROWS: 1}) if names <= {ROWS} and self.independent else None

    @cached_property
    def rows_at_once(self) -> int:
        """Up to so many rows need not wait for their turn; 0 where that isn't known beforehand."""
        if self.fixed_work is None:
            return 0
        every, row = self.fixed_work
        step = self.rows_in_a_run(every, row)
        while step and (every + row * step) * self.number_seconds > AT_ONCE_SECONDS:
            step //= 2
        return step

    def work(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Numbers in and out, given the named sizes: those of every run, and those of each row."""
        return self.fixed_work or self._count(sizes)

    def _count(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        tensors = (*self.function.inputs, *self.function.outputs)
        of_rows = [t for t in tensors if self.independent and t.shape[:1] == (ROWS,)]
        others = [t for t in tensors if t not in of_rows]
        return _numbers(others, sizes), _numbers(of_rows, {**sizes, ROWS: 1})

    def rows_in_a_run(self, every: int, row: int) -> int:
        """How many rows one run takes, where those have ``row`` numbers and a run ``every``."""
        if not row:
            return 1
        seconds = row * self.number_seconds
        longest = RUN_SECONDS / seconds if seconds * RUN_ROWS > RUN_SECONDS else RUN_ROWS
        most = min(RUN_ROWS, max(RUN_NUMBERS - every, 0) // row, int(longest))
        return max(1, most)


@dataclass(frozen=True)
class Signature:
    """Every input and output of a model, by name, in the order of its functions."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Layout(NamedTuple):
    """Inputs that were checked: their named sizes, how many numbers the answer has, and whether
    every function takes them at once, without waiting for its turn."""

    sizes: Mapping[str, int]
    numbers: int
    at_once: bool


@dataclass(frozen=True)
class Plan:
    """The functions to run for some outputs, and the names of those outputs.

    ``plain`` has name, type and shape of a row of each input where the caller chooses nothing but
    the number of rows: the common case, which is checked faster. ``row_numbers`` is how many
    numbers the answer then has for each row. Of other inputs (several directions, parameters)
    ``layouts`` remembers the types and shapes that were found right.
    """

    functions: tuple[LoadedFunction, ...]
    outputs: tuple[str, ...]
    plain: tuple[tuple[str, "np.dtype[np.generic]", tuple[int | str, ...]], ...] = ()
    row_numbers: int = 0
    layouts: dict[object, Layout] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def rows_at_once(self) -> int:
        """Up to so many rows no function needs to wait for its turn."""
        return min(function.rows_at_once for function in self.functions)

    def rows_of(self, inputs: Mapping[str, Array]) -> int:
        """The number of rows, if ``inputs`` are plain and as they should be, else 0."""
        rows = 0
        for name, dtype, shape in self.plain:
            array = inputs[name]
            if array.dtype != dtype or array.shape[1:] != shape or not array.ndim:
                return 0
            if array.shape[0] != (rows := rows or array.shape[0]):
                return 0
        return rows

    def count(self, sizes: Mapping[str, int]) -> int:
        """How many numbers the functions give, for these sizes of the named dimensions."""
        return sum(_numbers(function.outputs, sizes) for function in self.functions)


@dataclass(frozen=True, eq=False)
class Model:
    """A verified version whose every function has answered its samples. Immutable.

    ``max_numbers`` is how many numbers an answer of it may have.
    """

    artifact: Artifact
    functions: dict[str, LoadedFunction]
    load_seconds: float = 0.0
    max_numbers: int = MAX_NUMBERS
    plans: dict[object, Plan] = field(default_factory=dict, repr=False)

    @property
    def manifest(self) -> AnyManifest:
        """What the artifact says of itself."""
        return self.artifact.manifest

    @cached_property
    def signature(self) -> Signature:
        """The inputs and outputs of all functions."""
        functions = self.manifest.functions.values()
        return Signature(
            {tensor.name: tensor for function in functions for tensor in function.inputs},
            {tensor.name: tensor for function in functions for tensor in function.outputs},
        )

    @cached_property
    def dtypes(self) -> dict[str, "np.dtype[np.generic]"]:
        """The type of each input."""
        return {name: np.dtype(tensor.dtype) for name, tensor in self.signature.inputs.items()}

    @cached_property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The smallest and the largest value of inputs that are indices."""
        found = self.classifier
        if found is None or found.label is None:
            return {}
        return {found.label: (0, len(found.classes) - 1)}

    @cached_property
    def curve(self) -> Curve | None:
        """The model as a function of one variable, if it is one."""
        return _interface(signatures.curve, self.manifest)

    @cached_property
    def classifier(self) -> Classifier | None:
        """The model as an image classifier, if it is one."""
        return _interface(signatures.classifier, self.manifest)

    @cached_property
    def loss_gradient(self) -> Function | None:
        """The gradients of the sigmoid convolution, if it has them."""
        return _interface(signatures.loss_gradient, self.manifest)


def _numbers(tensors: Iterable[Tensor], sizes: Mapping[str, int]) -> int:
    return sum(
        prod(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
        for tensor in tensors
    )


def _interface(
    find: Callable[[CommonManifest], Interface], manifest: CommonManifest
) -> Interface | None:
    try:
        return find(manifest)
    except WrongSignature:
        return None


@dataclass(frozen=True)
class Chosen:
    """The graph that serves a function here, why variants don't, and what its replay took."""

    file: str
    refused: tuple[str, ...]
    sample_seconds: float
    sample_rows: int
    number_seconds: float


@dataclass(frozen=True)
class Verdict:
    """That a version is good, by the hash of its manifest, and with which graphs it serves."""

    digest: str
    functions: dict[str, Chosen]


def verify_version(folder: Path, settings: Options) -> Verdict:
    """Verify every hash, load every graph, replay the samples.

    This trusts nothing and is not bounded in time or memory: ``service.runtime.verify`` runs it in
    a process that is.
    Raises ArtifactError (GraphRefused among them) naming the file and the reason.
    """
    artifact = verify(folder)
    try:
        signatures.check_kind(artifact.manifest)
    except WrongSignature as error:
        raise ManifestInvalid(folder / MANIFEST_FILE, str(error)) from None
    samples = _read_samples(artifact)
    chosen = {
        name: _choose(artifact, name, function, samples, settings)
        for name, function in artifact.manifest.functions.items()
    }
    return Verdict(artifact.digest, chosen)


def load(
    folder: Path,
    settings: Options,
    verdict: Verdict | None = None,
    max_numbers: int = MAX_NUMBERS,
) -> Model:
    """The model in ``folder``, by the ``verdict`` on it; without one it is verified here.

    Only bytes are loaded whose hashes the verdict covers. Raises ArtifactError.
    """
    started = time.perf_counter()
    verdict = verdict or verify_version(folder, settings)
    artifact = open_version(folder)
    if artifact.digest != verdict.digest:
        raise ManifestInvalid(folder / MANIFEST_FILE, "it has changed since it was verified")
    functions = {
        name: _load_function(artifact, function, verdict.functions[name], settings)
        for name, function in artifact.manifest.functions.items()
    }
    return Model(artifact, functions, time.perf_counter() - started, max_numbers)


def _load_function(
    artifact: Artifact, function: Function, chosen: Chosen, settings: Options
) -> LoadedFunction:
    graph = next(g for g in (function.graph, *function.variants) if g.file == chosen.file)
    content = artifact.read(graph.file)
    try:
        session = Session(content, function, settings.providers, settings.session_threads)
    except GraphError as error:
        raise GraphRefused(artifact.folder / graph.file, str(error)) from None
    session.set_times(chosen.sample_seconds, chosen.sample_rows)
    return LoadedFunction(function, session, graph, chosen.refused, chosen.number_seconds)


def _choose(
    artifact: Artifact, name: str, function: Function, samples: dict[str, Array], settings: Options
) -> Chosen:
    """Of the graphs that agree on this machine the one that is fastest on it."""
    refused: list[str] = []
    agreeing: list[tuple[Graph, Session]] = []
    variants = function.variants if settings.precision == "auto" else ()
    for graph in (*variants, function.graph):
        content = artifact.read(graph.file)
        try:
            check_graph(content)
            session = Session(content, function, settings.providers, settings.session_threads)
            replay(session, name, function, graph, samples)
        except GraphError as error:
            if graph is function.graph:
                raise GraphRefused(artifact.folder / graph.file, str(error)) from None
            refused.append(f"{graph.file}: {error}")
        else:
            agreeing.append((graph, session))
    given = [samples[f"{name}.{tensor.name}"] for tensor in function.inputs]
    by_rows = signatures.rows_are_independent(function) and all(array.ndim for array in given)
    with_rows = [by_rows and tensor.shape[:1] == (ROWS,) for tensor in function.inputs]
    # On a busy machine a graph may wait for the processor a hundred times as long as it runs. That
    # of the process won't do: where RLIMIT_CPU is set, Linux renews it at ticks, every 1 to 10 ms.
    # What a GPU does is not seen in the processor's time.
    on_cpu = tuple(settings.providers) == ("CPUExecutionProvider",)
    clock = time.thread_time if on_cpu else time.perf_counter
    serving = 0
    if len(agreeing) > 1:
        one = [array[:1] if rows else array for array, rows in zip(given, with_rows, strict=True)]
        try:
            times = time_in_turn([session for _, session in agreeing], one, clock)
        except GraphError as error:
            reason = f"a graph fails on a single row of the samples: {error}"
            raise GraphRefused(artifact.folder / function.graph.file, reason) from None
        serving = fastest(times)
        refused += [
            f"{graph.file}: it takes {1e3 * seconds:.3g} ms for a row on this machine, and "
            f"{agreeing[serving][0].file} takes {1e3 * times[serving]:.3g} ms"
            for place, ((graph, _), seconds) in enumerate(zip(agreeing, times, strict=True))
            if place != serving and graph is not function.graph
        ]
    graph, session = agreeing[serving]
    gives = sum(samples[f"{name}.{tensor.name}"].size for tensor in function.outputs)
    seconds, rows, count = _cost(session, given, with_rows, gives, clock)
    return Chosen(graph.file, tuple(refused), seconds, rows, seconds / count)


def _cost(
    session: Session,
    samples: Sequence[Array],
    with_rows: Sequence[bool],
    gives: int,
    clock: Callable[[], float],
) -> tuple[float, int, int]:
    """What a run of the samples takes in seconds, its rows, and its numbers in and out.

    ``gives`` is how many numbers come out. What a call takes whatever its rows is most of the time
    of a few: a run of as many rows as one may have, made from the samples, says better what a row
    takes.
    """
    seconds, inputs = session.sample_seconds, list(samples)
    counted = with_rows.index(True) if any(with_rows) else 0
    if seconds < QUICK_SECONDS and any(with_rows):
        rows, count = len(inputs[counted]), sum(a.size for a in inputs) + gives
        repeats = min(RUN_ROWS // rows, RUN_NUMBERS // count, int(QUICK_SECONDS / seconds))
        repeats = max(1, repeats)
        inputs = [
            np.concatenate([array] * repeats) if has_rows else array
            for array, has_rows in zip(inputs, with_rows, strict=True)
        ]
        try:
            seconds = min(_seconds(session, inputs, clock) for _ in range(MORE_RUNS))
            gives *= repeats
        except GraphError:  # its samples have run, and say what they take
            inputs = list(samples)
    rows = len(inputs[counted]) if inputs[counted].ndim else 1
    return seconds, rows, sum(array.size for array in inputs) + gives


def _seconds(session: Session, inputs: Sequence[Array], clock: Callable[[], float]) -> float:
    started = clock()
    session.run(*inputs)
    return clock() - started


def time_in_turn(
    sessions: Sequence[Session], inputs: Sequence[Array], clock: Callable[[], float]
) -> list[float]:
    """Seconds by ``clock`` that each takes for ``inputs``: the least of several runs.

    They run in turn, so that a moment in which the machine is slow is no session's alone.
    """
    times = [float("inf")] * len(sessions)
    for _ in range(TIMED_RUNS):
        for place, session in enumerate(sessions):
            times[place] = min(times[place], _seconds(session, inputs, clock))
    return times


def fastest(times: Sequence[float]) -> int:
    """Which of some graphs to serve, from their seconds: the first, or one that is clearly faster.

    The first is the one published as the fastest. Where another one is a little faster, that may be
    chance, and the next start would choose differently.
    """
    least = min(times)
    if times[0] - least < LEAST_GAIN_SECONDS or least > CLEARLY * times[0]:
        return 0
    return list(times).index(least)


def _read_samples(artifact: Artifact) -> dict[str, Array]:
    content = artifact.read(SAMPLES_FILE)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as samples:
            return {name: samples[name] for name in samples.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise GraphRefused(
            artifact.folder / SAMPLES_FILE, f"it is not a readable .npz file ({error})"
        ) from None
