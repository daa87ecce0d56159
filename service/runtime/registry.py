"""What is serving: the newest good version of every model, swapped while requests run.

A refresh looks at the artifacts folder, loads what is new, and replaces one mapping at the end:
a request holds on to the model it was given, so an old version lives until its last answer.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contract.errors import ArtifactError
from contract.manifest import Function
from contract.signatures import Classifier, Curve
from contract.store import list_models, list_versions, version_folder
from service.runtime.errors import ModelNotReady, NoSuchModel
from service.runtime.loader import Model, load
from service.runtime.observer import Observer
from service.settings import Settings

log = logging.getLogger("gradserve")

Signature = tuple[tuple[str, int, int, int], ...]
Face = TypeVar("Face")


@dataclass(frozen=True)
class Refusal:
    """Why a version does not serve, and what its folder looked like when it was tried."""

    reason: str
    signature: Signature


@dataclass(frozen=True)
class Missing:
    """A model that is waited for, and why it is not there."""

    model: str
    reason: str


class Registry:
    """The models in service. All but ``refresh`` belongs to the event loop's thread.

    The first look loads with ``threads`` threads. ``on_change`` is called when models were
    replaced, whose memory can then be given back. ``makers`` says for models that users will ask
    for how to get each of them.
    """

    def __init__(
        self,
        settings: Settings,
        observer: Observer | None = None,
        threads: int = 1,
        on_change: Callable[[], None] = lambda: None,
        makers: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.observer = observer or Observer()
        self.threads = threads
        self.on_change = on_change
        self.makers = makers or {}
        self.root = settings.artifacts
        self.models: dict[str, Model] = {}
        self.refused: dict[str, dict[int, Refusal]] = {}
        self.scanned = False
        self.looked = asyncio.Event()
        self._expected: set[str] = {*settings.require, *settings.pin}
        self._signatures: dict[str, Signature] = {}

    def get(self, name: str) -> Model:
        """The serving version of ``name``. Raises NoSuchModel or ModelNotReady."""
        model = self.models.get(name)
        if model is None:
            raise self._absent(name)
        return model

    def curve(self, name: str) -> tuple[Model, Curve]:
        """A model of a function of one variable. Raises as ``get``."""
        return self._with(name, "a function of one variable", lambda model: model.curve)

    def classifier(self, name: str) -> tuple[Model, Classifier]:
        """An image classifier. Raises as ``get``."""
        return self._with(name, "an image classifier", lambda model: model.classifier)

    def loss_gradient(self, name: str) -> tuple[Model, Function]:
        """A model with the gradients of the sigmoid convolution. Raises as ``get``."""
        return self._with(name, "a sigmoid convolution", lambda model: model.loss_gradient)

    def missing(self) -> list[Missing]:
        """What readiness waits for; empty when the service is ready."""
        if not self.scanned:
            return [Missing("", "the artifacts are still being loaded")]
        waited_for = self._expected or (set() if self.models else set(self.makers))
        return [Missing(name, self._why(name)) for name in sorted(waited_for - self.models.keys())]

    def refresh(self, load_version: Callable[[Path, Settings], Model] = load) -> None:
        """Look at the folder once and bring ``models`` up to date. Blocks; run it in a thread.

        A version that was refused is tried again only when its folder has changed.
        """
        names = list_models(self.root)
        # At the start no request is served that loading on every core could slow down.
        with ThreadPoolExecutor(1 if self.scanned else self.threads) as pool:
            found = pool.map(lambda name: self._newest(name, load_version), names)
            looked = dict(zip(names, found, strict=True))
        serving = {name: model for name, (model, _) in looked.items() if model is not None}
        self.refused = self.refused | {name: refused for name, (_, refused) in looked.items()}
        for name in self.models.keys() - serving.keys():
            log.warning("%s no longer serves: %s", name, self._why(name))
        changed = serving != self.models
        self.models = serving
        if changed:
            self.on_change()
        for name in {*serving, *self.makers, *self._expected}:
            version = serving[name].manifest.version if name in serving else 0
            self.observer.version_in_service(name, version)
        if not self.scanned:
            self._expected |= {name for name in list_models(self.root) if self._versions(name)}
            self.scanned = True
            for missing in self.missing():
                log.warning("not ready: %s: %s", missing.model, missing.reason)
        refused = {name: len(self.refused.get(name, ())) for name in names}
        self.observer.models(len(serving), refused)
        self.observer.readiness(not self.missing())

    async def watch(self) -> None:
        """Refresh for ever, every ``watch_seconds``, without holding up the event loop."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:
                # Whatever befell one look at the folder, what serves goes on serving.
                log.exception("could not look at %s; trying again", self.root)
            self.looked.set()
            await asyncio.sleep(self.settings.watch_seconds)

    def _versions(self, name: str) -> list[int]:
        pinned = self.settings.pin.get(name)
        versions = list_versions(self.root, name)
        return versions if pinned is None else [v for v in versions if v == pinned]

    def _newest(
        self, name: str, load_version: Callable[[Path, Settings], Model]
    ) -> tuple[Model | None, dict[int, Refusal]]:
        """The newest good version of a model, the one that serves if it is still that; and the
        newer ones, which are refused."""
        serving = self.models.get(name)
        known = self.refused.get(name, {})
        refused: dict[int, Refusal] = {}
        found: Model | None = None
        for version in self._versions(name):
            folder = version_folder(self.root, name, version)
            signature = _signature(folder)
            unchanged = signature == self._signatures.get(name)
            if serving and serving.manifest.version == version and unchanged:
                found = serving
                break
            if version in known and known[version].signature == signature:
                refused[version] = known[version]
                continue
            try:
                found = load_version(folder, self.settings)
            except Exception as error:
                reason = str(error) if isinstance(error, ArtifactError | OSError) else repr(error)
                refused[version] = Refusal(reason, signature)
                log.error("refused %s version %d: %s", name, version, reason)
                continue
            self._signatures[name] = signature
            log.info("serving %s version %d", name, version)
            for loaded in found.functions.values():
                for reason in loaded.refused:
                    log.warning("%s version %d: not used: %s", name, version, reason)
            break
        return found, refused

    def _absent(self, name: str) -> NoSuchModel | ModelNotReady:
        if name in self.makers or name in self._expected or not self.scanned:
            return ModelNotReady(
                f"{name if name in self.makers else 'The model'}: {self._why(name)}"
            )
        return NoSuchModel("There is no model of that name; /models lists those there are")

    def _with(
        self, name: str, what: str, find: Callable[[Model], Face | None]
    ) -> tuple[Model, Face]:
        model = self.get(name)
        face = find(model)
        if face is None:
            names = [name for name, other in self.models.items() if find(other) is not None]
            raise NoSuchModel(f"That model is not {what}; these are: {', '.join(names) or 'none'}")
        return model, face

    def _why(self, name: str) -> str:
        if not self.scanned:
            return "the artifacts are still being loaded"
        refused = self.refused.get(name)
        if refused:
            version = max(refused)
            return f"version {version} was refused: {refused[version].reason}"
        pinned = self.settings.pin.get(name)
        wanted = "version of it" if pinned is None else f"version {pinned} of it, which is pinned"
        how = f"; {self.makers[name]}" if name in self.makers else ""
        return f"the artifacts folder has no {wanted}{how}"


def _signature(folder: Path) -> Signature:
    """Name, size, time and inode of every file: differs when anything in the folder changed."""
    try:
        entries = sorted(folder.iterdir())
        stats = [(entry.name, entry.lstat()) for entry in entries]
    except OSError:
        return ()
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)
