"""From a version folder to a model that answers: verify, load, replay."""

import io
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.errors import ArtifactError
from contract.manifest import Function, Graph
from contract.store import AnyManifest, Artifact, verify
from service.runtime.session import Array, GraphError, Session, replay
from service.settings import Settings

SAMPLES_FILE = "samples.npz"


class GraphRefused(ArtifactError):
    """A graph does not load here, or does not give the answers that PyTorch gave."""


@dataclass(frozen=True)
class LoadedFunction:
    """A function in service: the session chosen for it, and why a faster one was not."""

    session: Session
    graph: Graph
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A verified version whose every function has answered its samples. Immutable."""

    artifact: Artifact
    functions: dict[str, LoadedFunction]
    load_seconds: float

    @property
    def manifest(self) -> AnyManifest:
        """What the artifact says of itself."""
        return self.artifact.manifest

    def run(self, function: str, *arrays: Array) -> dict[str, Array]:
        """Outputs of ``function`` by name. Raises KeyError if the model has none such."""
        session = self.functions[function].session
        return dict(zip(session.outputs, session.run(*arrays), strict=True))


def load(folder: Path, settings: Settings) -> Model:
    """Verify every hash, load every graph, replay the samples.

    Raises ArtifactError (GraphRefused among them) naming the file and the reason.
    """
    started = time.perf_counter()
    artifact = verify(folder)
    samples = _read_samples(artifact)
    functions = {
        name: _load_function(artifact, name, function, samples, settings)
        for name, function in artifact.manifest.functions.items()
    }
    return Model(artifact, functions, time.perf_counter() - started)


def _load_function(
    artifact: Artifact, name: str, function: Function, samples: dict[str, Array], settings: Settings
) -> LoadedFunction:
    """The first variant that agrees on this machine, or else the reference graph."""
    refused: list[str] = []
    variants = function.variants if settings.precision == "auto" else ()
    for graph in (*variants, function.graph):
        content = artifact.read(graph.file)
        try:
            session = Session(content, function, settings.providers, settings.session_threads)
            replay(session, name, function, graph.agreement, samples)
        except GraphError as error:
            if graph is function.graph:
                raise GraphRefused(artifact.folder / graph.file, str(error)) from None
            refused.append(f"{graph.file}: {error}")
        else:
            return LoadedFunction(session, graph, tuple(refused))
    raise AssertionError("the reference graph is always tried")


def _read_samples(artifact: Artifact) -> dict[str, Array]:
    content = artifact.read(SAMPLES_FILE)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as samples:
            return {name: samples[name] for name in samples.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise GraphRefused(
            artifact.folder / SAMPLES_FILE, f"it is not a readable .npz file ({error})"
        ) from None
