"""What is serving: the newest good version of every model, swapped while requests run.

A scan of the artifacts folder finds new versions; ``service.runtime.verifier`` verifies them in
other processes; a later scan loads those that passed and replaces one mapping at the end. A request
keeps the model it was given, so an old version stays in memory until its last answer.

Loaded models stay loaded when the folder vanishes, becomes unreadable or is damaged. Two changes
count as deliberate: a version's folder is gone while its model's folder is there (the next best
version serves), and a model's folder is gone while others are there.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contract.errors import ArtifactError
from contract.manifest import Function
from contract.signatures import Classifier, Curve
from contract.store import (
    MANIFEST_FILE,
    NO_ROOM,
    check_listing,
    is_foreign,
    list_models,
    list_versions,
    open_version,
    version_folder,
)
from service.runtime.cache import FIRST_LOOK_SECONDS as STORE_SECONDS
from service.runtime.cache import Cache
from service.runtime.errors import ModelNotReady, NoSuchModel
from service.runtime.loader import Model, Verdict, load
from service.runtime.observer import Observer
from service.runtime.verifier import Refused, Verifier
from service.settings import Settings

log = logging.getLogger("gradserve")

# What lies in a version's folder: name, size, time and inode of each file. It differs when anything
# has changed.
Signature = tuple[tuple[str, int, int, int], ...]
Interface = TypeVar("Interface")

# The first look waits so long for verdicts; models that take longer come with later looks. Loading
# the shipped ones takes less, and liveness probes wait longer.
FIRST_LOOK_SECONDS = 3.0
# A version that is being verified for longer doesn't keep older ones waiting where none serves.
PATIENCE_SECONDS = 2.0
PENDING_SECONDS = 0.2  # between looks while something is being verified
# Of one model so many versions are verified at a time at most, and one more than a quarter of the
# newer ones that were refused: a good one behind thousands of bad ones is found in minutes, and
# nothing is verified in vain where the newest is good.
MOST_PENDING = 64
REFUSED_FOR_ONE_MORE = 4
# A manifest of this size is checked here before a process is asked; real ones have a quarter of it.
QUICK_MANIFEST_BYTES = 64 * 1024
# Where nothing is being verified, looks take this part of a core at most, however many models.
LOOKING_SHARE = 0.1
MOST_PROCESSES = 4  # that verify at a time
NAMED = 20  # models, in an error
MOST_LINES = 20  # of one kind in the log for one look
UNPUBLISHED = "there is no manifest.json: it was not published, or is still being copied"


@dataclass(frozen=True)
class Refusal:
    """Why a version does not serve, and what its folder looked like when it was tried."""

    reason: str
    signature: Signature


@dataclass(frozen=True)
class Missing:
    """A model that is waited for, and why it is not there. Without a name: the whole folder."""

    model: str
    reason: str


@dataclass(frozen=True)
class _Pending:
    """A version that is being verified."""

    future: "Future[Verdict]"
    signature: Signature
    since: float


@dataclass(frozen=True)
class _Found:
    """A version that was verified."""

    verdict: Verdict
    signature: Signature


class Registry:
    """The models in service. All but ``refresh`` belongs to the event loop's thread.

    Versions are verified by ``threads`` processes, two to four. ``on_change`` is called when
    models were replaced, whose memory can then be given back. ``makers`` says for models that users
    will ask for how to get each of them.
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
        self.on_change = on_change
        self.makers = makers or {}
        self.root = settings.folder
        self.cache = Cache(settings.store, settings, self.observer) if settings.store else None
        self.models: dict[str, Model] = {}
        self.refused: dict[str, dict[int, Refusal]] = {}
        self.versions: dict[str, list[int]] = {}  # of every model's folder, newest first
        self.scanned = False
        self.looked = asyncio.Event()
        self.verifier = Verifier(settings, width=min(MOST_PROCESSES, max(2, threads)))
        self._required: set[str] = {*settings.require, *settings.pin}
        self._expected: set[str] = set()  # models that were there at the first look
        self._copying: set[str] = set()  # models of which a version is not whole, and young
        self.was_ready = False  # has every model been there at once?
        self._trouble = ""  # what is wrong with the folder as a whole
        self._signatures: dict[str, Signature] = {}  # of what serves, when last looked at
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._asked: set[tuple[str, int]] = set()  # by the present look
        self._found: dict[tuple[str, int], _Found] = {}
        self._reported: dict[str, int] = {}
        self._counts: dict[str, int] = {}  # of refused versions, as last reported
        self._lines = 0  # about refusals, in the present look
        self._closed = False

    def get(self, name: str) -> Model:
        """The serving version of ``name``. Raises NoSuchModel or ModelNotReady."""
        model = self.models.get(name)
        if model is None:
            raise self._absent(name)
        return model

    def curve(self, name: str) -> tuple[Model, Curve]:
        """A model of a function of one variable. Raises as ``get``."""
        return self._find_by(name, "a function of one variable", lambda model: model.curve)

    def classifier(self, name: str | None) -> tuple[Model, Classifier]:
        """An image classifier; None for the default one. Raises as ``get``."""
        name = self.default_classifier() if name is None else name
        return self._find_by(name, "an image classifier", lambda model: model.classifier)

    def default_classifier(self) -> str:
        """The name that is set; if there is no such model, the only classifier that serves.

        Raises NoSuchModel where several others serve. One that is waited for is there: who asks for
        it meanwhile isn't given another one's answer.
        """
        name = self.settings.default_classifier
        if not self.scanned or name in {*self.models, *self.versions, *self._required}:
            return name
        names = sorted(n for n, model in self.models.items() if model.classifier is not None)
        if len(names) > 1:
            raise NoSuchModel(
                f"Name a classifier with ?model=: {', '.join(names[:NAMED])}. There is no {name}, "
                "which would answer by default; GRADSERVE_DEFAULT_CLASSIFIER names another one"
            )
        return names[0] if names else name

    def loss_gradient(self, name: str) -> tuple[Model, Function]:
        """A model with the gradients of the sigmoid convolution. Raises as ``get``."""
        return self._find_by(name, "a sigmoid convolution", lambda model: model.loss_gradient)

    def verifying(self, name: str) -> set[int]:
        """The versions of a model that are being verified."""
        return {version for model, version in tuple(self._pending) if model == name}

    @property
    def start_seconds(self) -> float:
        """How long a start waits for the first look."""
        return FIRST_LOOK_SECONDS + (0.0 if self.cache is None else STORE_SECONDS)

    def missing(self) -> list[Missing]:
        """What readiness waits for; empty when the service is ready."""
        if not self.scanned:
            return [Missing("", "the artifacts are still being loaded")]
        waited_for = self._required | self._expected
        if not self.was_ready and not self.settings.require:
            waited_for = waited_for | self._copying
        if not waited_for and not self.models:
            trouble = self._trouble or f"{self.root} holds no version that can be used"
            return [Missing("", trouble), *(Missing(n, how) for n, how in self.makers.items())]
        return [
            Missing(name, self._why_not_ready(name))
            for name in sorted(waited_for - self.models.keys())
        ]

    def refresh(self, wait_seconds: float = 0.0) -> None:
        """Look at the folder and bring ``models`` up to date; run it in a thread.

        What is new is verified meanwhile, and loaded by the look that finds the verdict: this one,
        if that comes within ``wait_seconds``. A version that was refused is tried again only when
        its folder has changed.
        """
        if self.cache is not None:
            if self.scanned:
                self.cache.run_once()
            else:
                self.cache.first_look()
        deadline = time.monotonic() + wait_seconds
        self._look()
        while self._pending and not self._closed and (left := deadline - time.monotonic()) > 0:
            wait([p.future for p in self._pending.values()], min(left, 0.2), FIRST_COMPLETED)
            self._look()
        if not self.scanned:
            self.scanned = True
            for missing in self.missing():
                log.warning(
                    "not ready: %s", ": ".join(filter(None, (missing.model, missing.reason)))
                )
        ready = not self.missing()
        self.was_ready |= ready
        self.observer.readiness(ready)

    def close(self) -> None:
        """End what is being verified; a later look begins anew. No thread is left after it."""
        self._closed = True
        if self.cache is not None:
            self.cache.close()
        self.verifier.stop()
        self._pending.clear()

    async def watch(self) -> None:
        """Refresh for ever, every ``watch_seconds``, without holding up the event loop."""
        self._closed = False
        if self.cache is not None:
            self.cache.open()
        while True:
            try:
                took = await asyncio.to_thread(self._timed_refresh)
            except Exception:
                # Whatever befell one look at the folder, what serves goes on serving.
                log.exception("could not look at %s; trying again", self.root)
                took = 0.0
            self.looked.set()
            if self._pending:
                await asyncio.sleep(max(min(self.settings.watch_seconds, PENDING_SECONDS), took))
            else:
                await asyncio.sleep(max(self.settings.watch_seconds, took / LOOKING_SHARE))

    def _timed_refresh(self) -> float:
        """Refresh; the processor time that it took, s. Waiting for verdicts, or for a turn on a
        busy machine, is none, and must not put off the next look.
        """
        started = time.thread_time()
        self.refresh(0.0 if self.scanned else FIRST_LOOK_SECONDS)
        return time.thread_time() - started

    def _look(self) -> None:
        """One look at the folder."""
        names, trouble = self._names()
        if trouble and self.cache is not None:
            trouble = self.cache.trouble() or trouble
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble and self.models:
                log.warning("%s; what is loaded goes on serving", trouble)
            elif trouble:
                log.warning("%s", trouble)
            self.observer.folder_readable(not trouble)
        if trouble:
            return
        if not self.scanned:
            self._expected |= {name for name in names if self._has_versions(name)}
        self._asked.clear()
        self._lines = 0
        serving: dict[str, Model] = {}
        for name in names:
            found = self._newest(name)
            if found is not None:
                serving[name] = found
        if self._lines > MOST_LINES:
            log.error("refused %d versions more; /models lists them", self._lines - MOST_LINES)
        self._forget_all_but(set(names))
        for name in self.models.keys() - serving.keys():
            log.warning("%s no longer serves: %s", name, self._why_not_ready(name))
        changed = serving != self.models
        self.models = serving
        if changed:
            if self.cache is not None:
                self.cache.hold({name: m.artifact.folder for name, m in serving.items()})
            self.on_change()
        self._report(serving)

    def _report(self, serving: dict[str, Model]) -> None:
        """Tell the observer the version of each model that serves, served or is waited for."""
        for name in {*serving, *self.makers, *self._required, *self._expected, *self._reported}:
            version = serving[name].manifest.version if name in serving else 0
            if self._reported.get(name) != version:
                self._reported[name] = version
                self.observer.version_in_service(name, version)
        counts = {name: len(versions) for name, versions in self.refused.items() if versions}
        gone = dict.fromkeys(self._counts.keys() - counts.keys(), 0)
        self._counts = counts
        self.observer.models(len(serving), counts | gone)

    def _names(self) -> tuple[list[str], str]:
        """The models of which there is a folder; or in words why nothing can be said of them."""
        root = self.root
        try:
            entries = [entry for entry in root.iterdir() if not is_foreign(entry.name)]
            names = list_models(root)
        except FileNotFoundError:
            return [], f"the artifacts folder {root} is missing; GRADSERVE_ARTIFACTS names another"
        except NotADirectoryError:
            return [], f"{root} is not a folder of artifacts, but a file"
        except OSError as error:
            return [], f"the artifacts folder {root} cannot be read ({error.strerror})"
        if not entries:
            return [], f"the artifacts folder {root} is empty"
        if not names:
            return [], (
                f"{root} is no artifacts folder: nothing in it is <model>/<version>/manifest.json"
            )
        return names, ""

    def _versions(self, name: str) -> list[int]:
        """Versions of which there is a folder, newest first. Raises OSError if unreadable."""
        pinned = self.settings.pin.get(name)
        versions = self.versions[name] = list_versions(self.root, name)
        return versions if pinned is None else [v for v in versions if v == pinned]

    def _has_versions(self, name: str) -> bool:
        try:
            return bool(self._versions(name))
        except OSError:
            return True  # which can't be known

    def _newest(self, name: str) -> Model | None:
        """The newest good version of a model, as far as is known by now."""
        serving = self.models.get(name)
        try:
            versions = self._versions(name)
        except OSError as error:
            if serving is None:
                why = f"its folder cannot be read ({error.strerror})"
                self.refused[name] = {0: Refusal(why, ())}
            return serving
        refused: dict[int, Refusal] = {}
        self._copying.discard(name)
        pending = 0
        waiting = False  # for a newer one, which goes before
        found: Model | None = None
        for version in versions:
            folder = version_folder(self.root, name, version)
            signature = _signature(folder)
            if serving is not None and serving.manifest.version == version:
                found = self._reloaded(serving, folder, signature)
                break
            judge = self._result if waiting else self._loaded
            result = judge(name, version, folder, signature)
            if isinstance(result, Model):
                found = result
                break
            if isinstance(result, Refusal):
                refused[version] = result
                waits = not self.was_ready and name not in self._copying
                if waits and _age(folder) < self.settings.copy_seconds:
                    self._copying.add(name)
                continue
            if isinstance(result, _Pending):
                pending += 1
                patient = time.monotonic() - result.since < PATIENCE_SECONDS
                waiting = waiting or serving is not None or patient
                if pending <= min(len(refused) // REFUSED_FOR_ONE_MORE, MOST_PENDING):
                    continue
            if waiting:
                # What was refused of those behind it stays refused, and isn't said again.
                known = self.refused.get(name, {})
                refused |= {v: known[v] for v in versions if v < version and v in known}
                break
        self.refused[name] = refused
        # Nothing is taken away before it is known what follows.
        return serving if found is None and pending else found

    def _reloaded(self, serving: Model, folder: Path, signature: Signature) -> Model:
        """What serves, or what has been published in its place under the same number."""
        name, version = serving.manifest.model, serving.manifest.version
        if signature == self._signatures.get(name):
            return serving
        result = self._loaded(name, version, folder, signature, serving)
        if isinstance(result, Model):
            self._signatures[name] = signature
            return result
        if isinstance(result, Refusal):
            log.warning(
                "%s version %d has changed on disk and would be refused now (%s); "
                "what is loaded goes on serving",
                name,
                version,
                result.reason,
            )
            self._signatures[name] = signature
        return serving

    def _result(
        self, name: str, version: int, folder: Path, signature: Signature
    ) -> _Pending | _Found | Refusal:
        """What is known of a version; if nothing is, it is given to be verified."""
        key = (name, version)
        self._asked.add(key)
        known = self.refused.get(name, {}).get(version) or self._found.get(key)
        if known is not None and known.signature == signature:
            return known
        pending = self._pending.get(key)
        if pending is None or pending.signature != signature:
            if pending is not None:
                self._pending.pop(key).future.cancel()
            reason = _plain_fault(folder, signature)
            if reason:
                return self._refuse(name, version, reason, signature)
            future = self.verifier.submit(folder, f"{folder.absolute()} {signature}")
            pending = self._pending[key] = _Pending(future, signature, time.monotonic())
        if not pending.future.done():
            return pending
        del self._pending[key]
        try:
            self._found[key] = _Found(pending.future.result(), signature)
        except Refused as error:
            return self._refuse(name, version, str(error), signature)
        except OSError as error:
            return self._later(name, version, error, pending)
        return self._found[key]

    def _loaded(
        self,
        name: str,
        version: int,
        folder: Path,
        signature: Signature,
        serving: Model | None = None,
    ) -> Model | _Pending | Refusal:
        """The model in ``folder``, if it was found good: ``serving`` if that is the very same."""
        found = self._result(name, version, folder, signature)
        if not isinstance(found, _Found):
            return found
        if serving is not None and serving.artifact.digest == found.verdict.digest:
            return serving
        try:
            model = load(folder, self.settings, found.verdict, self.settings.max_numbers)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                return self._later(name, version, error)
            reason = str(error) if isinstance(error, ArtifactError | OSError) else repr(error)
            return self._refuse(name, version, reason, found.signature)
        self._signatures[name] = found.signature
        which = ", ".join(
            f"{function} in {loaded.graph.precision}"
            for function, loaded in model.functions.items()
            if loaded.function.variants
        )
        log.info("serving %s version %d%s", name, version, which and f": {which}")
        for loaded in model.functions.values():
            for reason in loaded.refused:
                log.warning("%s version %d: not used: %s", name, version, reason)
        return model

    def _later(
        self, name: str, version: int, error: OSError, pending: _Pending | None = None
    ) -> _Pending:
        """The system has no room for it now, which says nothing of the version: try again."""
        log.warning("%s version %d can't be loaded for now: %s; trying again", name, version, error)
        return pending or _Pending(Future(), (), time.monotonic())

    def _refuse(self, name: str, version: int, reason: str, signature: Signature) -> Refusal:
        # Clients read it as well, and where the folder lies on this machine is not theirs to know.
        reason = reason.replace(f"{self.root}{os.sep}", "")
        before = self.refused.get(name, {}).get(version)
        if before is None or before.reason != reason:
            self._lines += 1
            if self._lines <= MOST_LINES:
                log.error("refused %s version %d: %s", name, version, reason)
        return Refusal(reason, signature)

    def _forget_all_but(self, names: set[str]) -> None:
        """Remove what is known of models whose folder is gone, and stop what nobody waits for."""
        for name in self.refused.keys() - names:
            del self.refused[name]
        for name in self.versions.keys() - names:
            del self.versions[name]
        self._expected &= names
        self._copying &= names
        for key in [key for key in self._found if key[0] not in names]:
            del self._found[key]
        for key in self._pending.keys() - self._asked:
            self._pending.pop(key).future.cancel()

    def _absent(self, name: str) -> NoSuchModel | ModelNotReady:
        known = {*self.makers, *self._required, *self._expected, *self.refused}
        if name in known or not self.scanned:
            return ModelNotReady(
                f"{name if name in known else 'The model'}: {self._why_not_ready(name)}"
            )
        return NoSuchModel("There is no model of that name; /models lists those there are")

    def _find_by(
        self, name: str, what: str, find: Callable[[Model], Interface | None]
    ) -> tuple[Model, Interface]:
        model = self.get(name)
        interface = find(model)
        if interface is None:
            names = [name for name, other in self.models.items() if find(other) is not None]
            raise NoSuchModel(f"That model is not {what}; these are: {', '.join(names) or 'none'}")
        return model, interface

    def _why_not_ready(self, name: str) -> str:
        if not self.scanned:
            return "the artifacts are still being loaded"
        if pending := self.verifying(name):
            return f"version {max(pending)} is being verified"
        if refused := self.refused.get(name):
            version = max(refused)
            return f"version {version} was refused: {refused[version].reason}"
        pinned = self.settings.pin.get(name)
        there = [v for v in self.versions.get(name, []) if pinned in (None, v)]
        if there:  # verified, and its turn to be loaded comes
            return f"version {max(there)} is being loaded"
        if self._trouble:
            reason = self._trouble
        else:
            wanted = (
                "version of it" if pinned is None else f"version {pinned} of it, which is pinned"
            )
            reason = f"the artifacts folder has no {wanted}"
        return f"{reason}; {self.makers[name]}" if name in self.makers else reason


def _signature(folder: Path) -> Signature:
    """What lies in a version's folder; nothing if it can't be read."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_foreign(entry.name))
        stats = [(entry.name, entry.lstat()) for entry in entries]
    except OSError:
        return ()
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def _plain_fault(folder: Path, signature: Signature) -> str:
    """Why a version can't be good, as far as its manifest and its list of files tell; else empty.

    That takes a millisecond, where a process to verify it takes half a second to start.
    """
    sizes = {file[0]: file[1] for file in signature}
    if MANIFEST_FILE not in sizes:
        return UNPUBLISHED
    if sizes[MANIFEST_FILE] > QUICK_MANIFEST_BYTES or folder.is_symlink():
        return ""
    try:
        check_listing(open_version(folder))
    except ArtifactError as error:
        return str(error)
    except OSError:  # the system has no room, which says nothing of the version
        return ""
    return ""


def _age(folder: Path) -> float:
    """Seconds since anything in the folder changed; infinite if it can't be read."""
    try:
        changed = [max(s.st_mtime, s.st_ctime) for s in map(Path.stat, (folder, *folder.iterdir()))]
    except OSError:
        return float("inf")
    return abs(time.time() - max(changed))
