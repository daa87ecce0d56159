"""Artifacts in an object store: list, fetch and publish them, by fsspec.

An address such as ``s3://bucket/prefix`` stands where a folder does. The layout is the folder's:
``prefix/<model>/<version>/``. A version exists once its manifest is there, which publishers put
last. Before anything else they put ``.claim`` on the condition that there is none, so that no two
of them ever get one number; it stays, for a number is never used again.

fsspec, and what it needs for the store (s3fs), are imported when an address is opened.
"""

import getpass
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from contract.errors import ArtifactError, FileMissing, PublishConflict, StoreUnavailable
from contract.manifest import AnyManifest
from contract.store import (
    MANIFEST_FILE,
    MANIFEST_LIMIT,
    Artifact,
    Draft,
    check_file,
    is_foreign,
    is_model_name,
    is_version_number,
    list_versions,
    open_version,
    read_manifest,
    version_folder,
)
from contract.system import sync_file, sync_folder

CLAIM = ".claim"
INSTALL = "pip install 'gradserve[s3]', or build the image with --build-arg LOCK=s3"
WRITABLE = ".writable"  # written to find out whether one may write
BLOCK_BYTES = 1024 * 1024
FETCHING = ".fetch-"  # how folders begin into which a version is fetched
# Options for fsspec's file systems, by protocol. Listings must not come from its cache.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "default_fill_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 10,
            "retries": {"max_attempts": 2, "mode": "standard"},
        },
    },
    "file": {"auto_mkdir": True},
}
# What a store answers where something is there already, or is being put there.
TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


def unusable(address: str) -> str:
    """Why no store can be opened at ``address`` on this machine; empty if one may be.

    Nothing is imported but fsspec, and nothing is asked over the network.
    """
    protocol, _, place = address.partition("://")
    no_store = f"{protocol}:// is no object store that is known; write s3://bucket/prefix"
    if protocol in {"http", "https"}:
        return no_store
    try:
        from fsspec.registry import known_implementations
    except ImportError:
        return f"object stores need the extra s3: {INSTALL}"
    known = known_implementations.get(protocol)
    if known is None:
        return no_store
    if find_spec(known["class"].partition(".")[0]) is None:
        how = f"install the extra s3: {INSTALL}" if protocol == "s3" else known.get("err", "")
        return f"the package for {protocol}:// is missing; {how}"
    if protocol == "s3" and not place.strip("/"):
        return "it names no bucket; write s3://bucket/prefix"
    return ""


@dataclass(frozen=True)
class StoredVersion:
    """A version in the store: whether it has a manifest, and what tells it from a changed one."""

    complete: bool
    files: frozenset[tuple[str, int, str]]  # name, bytes, and the store's tag or time


class Remote:
    """A place in an object store, such as ``s3://bucket/prefix``.

    Raises StoreUnavailable if there is no such protocol, or its package isn't installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        protocol = address.partition("://")[0]
        reason = unusable(address)
        if reason:
            raise StoreUnavailable(address, reason)
        try:
            import fsspec

            self._files, self._prefix = fsspec.url_to_fs(
                self.address, **OPTIONS.get(protocol, {"use_listings_cache": False})
            )
            if hasattr(self._files, "retries"):
                # Within each other, s3fs' five and its client's own make a lost store known after
                # minutes only. Whoever looks, looks again.
                self._files.retries = 2
        except (ImportError, ValueError) as error:
            raise StoreUnavailable(address, str(error)) from None

    def __str__(self) -> str:
        return self.address

    def look(self) -> dict[str, dict[int, StoredVersion]]:
        """Every version of every model, by one listing (a request for every 1,000 files).

        Raises StoreUnavailable.
        """
        try:
            with self._reaching():
                listed = self._files.find(self._prefix, detail=True)
        except FileNotFoundError as error:
            raise StoreUnavailable(self.address, f"there is no such place ({error})") from None
        found: dict[str, dict[int, set[tuple[str, int, str]]]] = {}
        for path, info in listed.items():
            parts = path.removeprefix(self._prefix).strip("/").split("/")
            if len(parts) == 3 and is_model_name(parts[0]) and is_version_number(parts[1]):
                tag = info.get("ETag") or info.get("etag") or info.get("mtime") or ""
                versions = found.setdefault(parts[0], {})
                versions.setdefault(int(parts[1]), set()).add((parts[2], info["size"], str(tag)))
        return {
            model: {
                version: StoredVersion(
                    any(name == MANIFEST_FILE for name, _, _ in files), frozenset(files)
                )
                for version, files in versions.items()
            }
            for model, versions in found.items()
        }

    def manifest(self, model: str, version: int) -> AnyManifest:
        """The manifest of a version. Raises StoreUnavailable, or as ``read_manifest``."""
        with tempfile.TemporaryDirectory() as home:
            folder = version_folder(Path(home), model, version)
            folder.mkdir(parents=True)
            self._copy(f"{model}/{version}/{MANIFEST_FILE}", folder / MANIFEST_FILE, MANIFEST_LIMIT)
            return read_manifest(folder)

    def fetch(self, model: str, version: int, root: Path) -> Artifact:
        """Copy a version to ``root/<model>/<version>``, where it appears whole or not at all.

        It is written to a hidden folder, the sha256 of each file taken from the bytes written, and
        renamed. Raises StoreUnavailable, or what ``verify`` raises for an artifact that isn't good.
        """
        root.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=FETCHING, dir=root))
        try:
            folder = version_folder(stage, model, version)
            folder.mkdir(parents=True)
            place = f"{model}/{version}"
            self._copy(f"{place}/{MANIFEST_FILE}", folder / MANIFEST_FILE, MANIFEST_LIMIT)
            artifact = open_version(folder)
            for name, file in artifact.manifest.files.items():
                digest, size = self._copy(f"{place}/{name}", folder / name, file.bytes)
                check_file(folder / name, file, digest, size)
            folder.chmod(0o755)  # the service may run as another user
            sync_folder(folder)
            target = version_folder(root, model, version)
            target.parent.mkdir(exist_ok=True)
            folder.rename(target)
            sync_folder(target.parent)
        except StoreUnavailable:
            raise
        except ArtifactError as error:
            name = error.path.name if isinstance(error.path, Path) else ""
            raise type(error)(f"{self}/{model}/{version}/{name}", error.reason) from None
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return Artifact(target, artifact.manifest, artifact.digest)

    def require_writable(self) -> None:
        """Raise StoreUnavailable if nothing may be written here."""
        with self._reaching():
            self._files.pipe_file(f"{self._prefix}/{WRITABLE}", b"")

    def claim(self, model: str) -> int:
        """A version number that nobody else gets, above all that there are.

        Raises StoreUnavailable.
        """
        version = max(self.look().get(model, {}), default=0) + 1
        who = f"{getpass.getuser()} on {platform.node()}, process {os.getpid()}\n".encode()
        while not self._create(f"{model}/{version}/{CLAIM}", who):
            version += 1
        return version

    def put(self, folder: Path) -> None:
        """Put the complete version in ``folder``, whose number was claimed; its manifest last.

        Raises StoreUnavailable, or PublishConflict if there is another under that number.
        """
        place = f"{folder.parent.name}/{folder.name}"
        for path in sorted(folder.iterdir()):
            if path.name != MANIFEST_FILE and not is_foreign(path.name):
                with self._reaching():
                    self._files.put_file(str(path), f"{self._prefix}/{place}/{path.name}")
        content = (folder / MANIFEST_FILE).read_bytes()
        if self._create(f"{place}/{MANIFEST_FILE}", content):
            return
        # A request whose answer was lost is repeated, and then finds what it has put itself.
        with self._reaching():
            there = self._files.cat_file(f"{self._prefix}/{place}/{MANIFEST_FILE}")
        if there != content:
            raise PublishConflict(f"{self}/{place}", "another publisher has used that number")

    def _create(self, place: str, content: bytes) -> bool:
        """Put a file on the condition that there is none; False if there is one."""
        try:
            # Not pipe_file(mode="create"), which some file systems do by a look and then a write.
            with self._reaching(), self._files.open(f"{self._prefix}/{place}", "xb") as stream:
                stream.write(content)
        except FileExistsError:
            return False
        return True

    def _copy(self, place: str, path: Path, limit: int) -> tuple[str, int]:
        """Copy a file to disk; the sha256 and number of the bytes written.

        Ends above ``limit`` bytes, which shows in the number. Raises StoreUnavailable, or
        FileMissing if it isn't there.
        """
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as copy:
            try:
                with (
                    self._reaching(),
                    self._files.open(f"{self._prefix}/{place}", "rb") as stream,
                ):
                    while size <= limit and (block := stream.read(BLOCK_BYTES)):
                        copy.write(block)
                        digest.update(block)
                        size += len(block)
            except FileNotFoundError:
                raise FileMissing(path, "it is not there, or not yet") from None
        sync_file(path)
        path.chmod(0o644)
        return digest.hexdigest(), size

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever the store's client raises into StoreUnavailable.

        But for FileNotFoundError and FileExistsError, which say something of one file.
        """
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if "bucket" in str(error).lower():
                raise StoreUnavailable(self.address, f"there is no such bucket ({error})") from None
            raise
        except Exception as error:
            response = getattr(error.__cause__, "response", None) or {}
            if response.get("Error", {}).get("Code") in TAKEN:
                raise FileExistsError(str(error)) from None
            kind = type(error).__name__
            raise StoreUnavailable(self.address, f"{kind}: {str(error) or 'no message'}") from error


Root = Path | Remote


def root_of(address: str | Path | Remote) -> Root:
    """The folder, or the place in an object store, that ``address`` names.

    Raises StoreUnavailable.
    """
    if isinstance(address, Remote):
        return address
    return Remote(address) if isinstance(address, str) and "://" in address else Path(address)


class RemoteDraft(Draft):
    """A version that is written on this machine and put into an object store when published.

    The artifact that ``publish`` returns lies on this machine until the block ends.
    """

    def __init__(self, remote: Remote, model: str) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="gradserve-")
        super().__init__(Path(self._home.name), model)
        self._remote = remote

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._home.cleanup()

    def _next_version(self) -> int:
        return self._remote.claim(self.model)

    def _place(self, version: int) -> Path:
        target = super()._place(version)
        self._remote.put(target)
        self.published = f"{self._remote}/{self.model}/{version}"
        return target


def open_draft(root: Root, model: str) -> Draft:
    """A draft of the next version of ``model`` there. Raises UnsafePath for a wrong name."""
    return RemoteDraft(root, model) if isinstance(root, Remote) else Draft(root, model)


def manifests(root: Root, model: str) -> Iterator[AnyManifest]:
    """The manifests of a model's versions, newest first, without those that can't be read.

    Raises StoreUnavailable.
    """
    if isinstance(root, Remote):
        found = root.look().get(model, {})
        versions = sorted((v for v, stored in found.items() if stored.complete), reverse=True)
    else:
        versions = list_versions(root, model)
    for version in versions:
        try:
            if isinstance(root, Remote):
                yield root.manifest(model, version)
            else:
                yield read_manifest(version_folder(root, model, version))
        except StoreUnavailable:
            raise
        except ArtifactError:
            continue


@contextmanager
def on_this_machine(root: Root, *models: str) -> Iterator[Path]:
    """A folder with the newest good version of each model: ``root`` itself, if that is one.

    Raises StoreUnavailable.
    """
    if not isinstance(root, Remote):
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="gradserve-") as home:
        found = root.look()
        for model in set(models):
            for version in sorted(found.get(model, {}), reverse=True):
                if not found[model][version].complete:
                    continue
                try:
                    root.fetch(model, version, Path(home))
                except StoreUnavailable:
                    raise
                except ArtifactError:
                    continue
                break
        yield Path(home)
