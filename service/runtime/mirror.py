"""A process that copies artifacts from an object store: ``python -m service.runtime.mirror``.

The clients of object stores have threads, which a worker must not fork with, and take some 60 MiB.
``service.runtime.cache`` starts this where its own process holds the cache's lock, writes one line
of JSON, ``Options``, and closes the input to end it. It writes its state into ``STATE``, a file
that every process may read.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contract.errors import ArtifactError, StoreUnavailable
from contract.remote import FETCHING, Remote, StoredVersion
from contract.store import MANIFEST_FILE, list_models, list_versions, verify, version_folder
from contract.system import lock

STATE = ".state.json"
PRUNED = ".pruned-"  # how folders begin that are being removed
MOST_SECONDS = 300.0  # between looks while the store fails
TROUBLE_CHARACTERS = 500

Known = dict[str, dict[int, StoredVersion]]


@dataclass(frozen=True)
class Options:
    """What to copy from where to where, and how often to look, as the settings have it."""

    address: str
    folder: str
    keep: int
    pin: dict[str, int]
    seconds: float


@dataclass
class State:
    """What the last look found. Times are seconds since the epoch, 0 for never."""

    looked: float = 0.0
    succeeded: float = 0.0
    trouble: str = ""
    refused: dict[str, str] = field(default_factory=dict)  # model/version → why


def read_state(folder: Path) -> State:
    """The state as last written; that of no look at all if there is none."""
    try:
        return State(**json.loads((folder / STATE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return State()


class Mirror:
    """Keeps ``folder`` like the store: the newest versions of each model, and those pinned."""

    def __init__(self, options: Options, open_store: Callable[[str], Remote] = Remote) -> None:
        self.options = options
        self.folder = Path(options.folder)
        self.state = State()
        self._open_store = open_store
        self._remote: Remote | None = None
        self._bad: dict[tuple[str, int], StoredVersion] = {}  # what could not be copied, as it was

    def tidy(self) -> None:
        """Remove what a killed process left half-way, and versions that are damaged."""
        for left in (*self.folder.glob(FETCHING + "*"), *self.folder.glob(PRUNED + "*")):
            shutil.rmtree(left, ignore_errors=True)
        for left in self.folder.glob(STATE + "?*"):
            left.unlink()
        for model in list_models(self.folder):
            for version in list_versions(self.folder, model):
                try:
                    verify(version_folder(self.folder, model, version))
                except ArtifactError:
                    self._remove_unless_loaded(model, version)  # it will be fetched anew

    def look(self) -> State:
        """Look at the store once, copy what is new, remove what is not wanted any more."""
        self.state.trouble = ""
        try:
            self._remote = self._remote or self._open_store(self.options.address)
            known = _complete(self._remote.look())
            if not known:
                raise StoreUnavailable(self.options.address, "there is no whole version in it")
            self._bad = {
                key: bad
                for key, bad in self._bad.items()
                if known.get(key[0], {}).get(key[1]) == bad
            }
            self.state.refused = {
                name: why for name, why in self.state.refused.items() if _key(name) in self._bad
            }
            self._fetch(self._remote, known)
            self._prune(known)
        except StoreUnavailable as error:
            self.state.trouble = str(error)[:TROUBLE_CHARACTERS]
        except OSError as error:  # of this machine: a full disk, no permission
            self.state.trouble = f"{error.filename or self.folder}: {error.strerror}"
        self.state.looked = time.time()
        if not self.state.trouble:
            self.state.succeeded = self.state.looked
        return self.state

    def write(self) -> None:
        """Tell everybody the state."""
        descriptor, name = tempfile.mkstemp(prefix=STATE, dir=self.folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(asdict(self.state), stream)
        Path(name).replace(self.folder / STATE)

    def wanted(self, model: str, versions: dict[int, StoredVersion]) -> list[int]:
        """The newest versions, as many as are kept, without those that are damaged; the pinned."""
        good = [v for v in sorted(versions, reverse=True) if (model, v) not in self._bad]
        pinned = self.options.pin.get(model)
        newest = good[: self.options.keep]
        return [pinned, *(v for v in newest if v != pinned)] if pinned in good else newest

    def _fetch(self, remote: Remote, known: Known) -> None:
        """Copy what is wanted and not there: of every model one version, then the next ones."""
        while True:
            fetched = False
            for model, versions in known.items():
                there = set(list_versions(self.folder, model))
                new = [v for v in self.wanted(model, versions) if v not in there]
                if not new:
                    continue
                fetched = True
                try:
                    remote.fetch(model, new[0], self.folder)
                except StoreUnavailable:
                    raise
                except ArtifactError as error:
                    # It is not tried again until something in it has changed; an older one is.
                    self._bad[model, new[0]] = versions[new[0]]
                    self.state.refused[f"{model}/{new[0]}"] = str(error)[:TROUBLE_CHARACTERS]
            if not fetched:
                return

    def _prune(self, known: Known) -> None:
        """Remove what the store no longer has, and old versions that no process has loaded."""
        for model in list_models(self.folder):
            wanted = set(self.wanted(model, known.get(model, {})))
            for version in list_versions(self.folder, model):
                if version in wanted:
                    continue
                if version not in known.get(model, {}):
                    self._remove(model, version)  # which somebody meant
                else:
                    self._remove_unless_loaded(model, version)
            if model not in known:
                with suppress(OSError):
                    (self.folder / model).rmdir()

    def _remove_unless_loaded(self, model: str, version: int) -> None:
        manifest = version_folder(self.folder, model, version) / MANIFEST_FILE
        try:
            with manifest.open("rb") as stream:
                lock(stream)
                self._remove(model, version)
        except FileNotFoundError:
            self._remove(model, version)
        except OSError:
            return  # it is loaded somewhere

    def _remove(self, model: str, version: int) -> None:
        """Take a version away in one step."""
        gone = Path(tempfile.mkdtemp(prefix=PRUNED, dir=self.folder))
        version_folder(self.folder, model, version).rename(gone / str(version))
        shutil.rmtree(gone, ignore_errors=True)


def _complete(found: Known) -> Known:
    """Only versions with a manifest: the others are being put there, or never were finished."""
    whole = {
        model: {version: stored for version, stored in versions.items() if stored.complete}
        for model, versions in found.items()
    }
    return {model: versions for model, versions in whole.items() if versions}


def _key(name: str) -> tuple[str, int]:
    model, _, version = name.partition("/")
    return model, int(version)


def main() -> None:
    """Look again and again until the input ends; after failures ever more seldom."""
    options = Options(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_input, daemon=True).start()
    mirror = Mirror(options)
    mirror.tidy()
    failures = 0
    while True:
        state = mirror.look()
        with suppress(OSError):
            mirror.write()
        failures = failures + 1 if state.trouble else 0
        longest = max(MOST_SECONDS, options.seconds)
        pause = min(longest, options.seconds * 2 ** min(failures, 20))
        time.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311 so that hosts don't ask in step


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
