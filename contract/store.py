"""Artifacts on disk: publish atomically, list versions, verify, find the newest good one.

Layout: ``root/<model>/<version>/`` with version = 1, 2, 3, … A version is written to a hidden
sibling folder, flushed to disk with its manifest last, and then takes its name in one rename:
a reader sees all of a version or nothing. Published versions never change.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader, BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from contract.errors import (
    ArtifactError,
    FileMissing,
    FileUnlisted,
    HashMismatch,
    ManifestInvalid,
    ManifestMissing,
    PublishConflict,
    UnknownSchema,
    UnsafePath,
    VersionNotFound,
)
from contract.manifest import (
    MANIFEST,
    READABLE_SCHEMAS,
    AnyManifest,
    File,
    FileName,
    ModelName,
)
from contract.system import lock, open_plain, sync_file, sync_folder

MANIFEST_FILE = "manifest.json"
MANIFEST_LIMIT = 8 * 1024 * 1024  # bytes; a real one has a few dozen kilobytes
MAX_VERSION = 2**31 - 1
# Errors that say nothing of a file: the process or the system has no descriptors or memory left.
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# What file systems, file managers and network shares leave in folders, besides names with a dot in
# front (.DS_Store, ._name, .nfs0001): none of it belongs to an artifact, and none of it harms one.
FOREIGN = frozenset({"@eaDir", "Thumbs.db", "desktop.ini", "lost+found"})
NOT_THERE = "the manifest lists it, but it is not there"

_model_name: TypeAdapter[str] = TypeAdapter(ModelName)
_file_name: TypeAdapter[str] = TypeAdapter(FileName)


@dataclass(frozen=True)
class Artifact:
    """A verified version: its folder, its manifest, and the sha256 of the manifest's bytes.

    The manifest holds the sha256 of every file, so that ``digest`` stands for the whole version.
    """

    folder: Path
    manifest: AnyManifest
    digest: str

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, their sha256 checked on these very bytes.

        Raises FileMissing, UnsafePath or HashMismatch.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise FileMissing(self.folder / name, "the manifest lists no such file")
        with _open_plain(self.folder / name) as stream:
            content = stream.read()
        check_file(self.folder / name, expected, hashlib.sha256(content).hexdigest(), len(content))
        return content


def is_foreign(name: str) -> bool:
    """Is ``name`` one that an operating system left in the folder, and not a publisher?"""
    return name.startswith(".") or name in FOREIGN


def list_models(root: Path) -> list[str]:
    """Names of the models under ``root`` that have a folder, sorted. A missing root has none."""
    if not root.is_dir():
        return []
    return sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and is_model_name(entry.name)
    )


def list_versions(root: Path, model: str) -> list[int]:
    """Version numbers of ``model``, newest first; whether they are good is not looked at."""
    folder = root / model
    if not folder.is_dir():
        return []
    return sorted(
        (int(entry.name) for entry in folder.iterdir() if is_version_number(entry.name)),
        reverse=True,
    )


def version_folder(root: Path, model: str, version: int) -> Path:
    """Where a version of a model lies."""
    return root / model / str(version)


def read_manifest(folder: Path) -> AnyManifest:
    """The manifest of the version in ``folder``, checked for form but not against the files.

    Raises ManifestMissing, UnknownSchema, ManifestInvalid or UnsafePath.
    """
    return open_version(folder).manifest


def open_version(folder: Path) -> Artifact:
    """The version in ``folder``, its manifest checked for form; its files are not looked at.

    Raises as ``read_manifest``.
    """
    path = folder / MANIFEST_FILE
    try:
        with _open_plain(path) as stream:
            content = stream.read(MANIFEST_LIMIT + 1)
    except FileMissing:
        raise ManifestMissing(path, "there is no manifest: this was never published") from None
    if len(content) > MANIFEST_LIMIT:
        raise ManifestInvalid(path, f"it is larger than {MANIFEST_LIMIT} bytes")
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestInvalid(path, "it is not valid JSON") from None
    if not isinstance(document, dict):
        raise ManifestInvalid(path, "it is not a JSON object")
    schema = document.get("schema_version")
    if schema not in READABLE_SCHEMAS or isinstance(schema, bool):
        known = " and ".join(map(str, READABLE_SCHEMAS))
        raise UnknownSchema(
            path, f"schema version {schema!r:.40} is not known here, only {known} are"
        )
    files = document.get("files")
    for name in files if isinstance(files, dict) else ():
        _check_file_name(folder, name)
    try:
        manifest = MANIFEST.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise ManifestInvalid(path, f"{where}: {first['msg']}") from None
    if str(manifest.version) != folder.name or manifest.model != folder.parent.name:
        raise ManifestInvalid(
            path, f"it is of {manifest.model} version {manifest.version}, not of this folder"
        )
    if manifest.version > MAX_VERSION:
        raise ManifestInvalid(path, f"its version is over {MAX_VERSION}")
    return Artifact(folder, manifest, hashlib.sha256(content).hexdigest())


def verify(folder: Path) -> Artifact:
    """Check a published version whole: manifest, exactly the listed files, every sha256.

    Raises a subclass of ArtifactError that names the file and the reason.
    """
    if folder.is_symlink():
        _check_link(folder)
    if not folder.is_dir():
        raise VersionNotFound(folder, "there is no such version")
    artifact = open_version(folder)
    check_listing(artifact)
    for name, expected in sorted(artifact.manifest.files.items()):
        with _open_plain(folder / name) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
        check_file(folder / name, expected, digest, size)
    return artifact


def check_listing(artifact: Artifact) -> None:
    """Check what is known without reading: exactly the listed files are there, with their sizes.

    Raises VersionNotFound (it can't be listed), FileUnlisted, FileMissing or HashMismatch.
    """
    folder, files = artifact.folder, artifact.manifest.files
    try:
        present = {entry.name: entry.lstat() for entry in folder.iterdir()}
    except OSError as error:  # removed meanwhile, or no permission
        raise VersionNotFound(folder, f"it cannot be listed ({error.strerror})") from None
    for name in sorted(present.keys() - files.keys() - {MANIFEST_FILE}):
        if not is_foreign(name):
            raise FileUnlisted(folder / name, "the manifest does not list this file")
    for name, expected in sorted(files.items()):
        status = present.get(name)
        if status is None:
            raise FileMissing(folder / name, NOT_THERE)
        if stat.S_ISREG(status.st_mode) and status.st_size != expected.bytes:
            raise HashMismatch(
                folder / name,
                f"it has {status.st_size} bytes, but {expected.bytes} bytes were published",
            )


def _check_link(folder: Path) -> None:
    """A symbolic link to a version may lead to another place in the same artifacts folder."""
    root = folder.parent.parent.resolve()
    if not folder.resolve().is_relative_to(root):
        raise UnsafePath(
            folder,
            "it is a symbolic link that leads out of the artifacts folder; copy the version there",
        )


def newest_good(
    root: Path, model: str, check: Callable[[Path], Artifact] = verify
) -> tuple[Artifact, list[ArtifactError]]:
    """The newest version of ``model`` that passes ``check``, and why newer ones did not.

    Raises VersionNotFound if none passes; the refusals are its ``__notes__``.
    """
    refused: list[ArtifactError] = []
    for version in list_versions(root, model):
        try:
            return check(version_folder(root, model, version)), refused
        except ArtifactError as error:
            refused.append(error)
    missing = VersionNotFound(root / model, "no version can be used")
    for refusal in refused:
        missing.add_note(str(refusal))
    raise missing


class Draft:
    """A version being written. Use as a context manager; files go into ``folder``.

    Leaving the block without ``publish`` (an error, an interrupt) removes the draft; a killed
    process leaves a hidden folder, which the next draft of the model removes. While a draft is
    open the model is locked: a second one raises PublishConflict.
    """

    def __init__(self, root: Path, model: str) -> None:
        if not is_model_name(model):
            raise UnsafePath(
                root / model, "a model's name has lower-case letters, digits and hyphens only"
            )
        self.root = root
        self.model = model
        self.folder = Path()
        self.published = ""  # where the version lies once it is published, for people
        self._lock: BufferedWriter | None = None

    def __enter__(self) -> Self:
        home = self.root / self.model
        home.mkdir(parents=True, exist_ok=True)
        self._lock = (home / ".lock").open("ab")
        try:
            lock(self._lock)
        except OSError:
            self._lock.close()
            raise PublishConflict(home, "another process is publishing this model") from None
        for stale in home.glob(".draft-*"):
            shutil.rmtree(stale)
        self.folder = Path(tempfile.mkdtemp(prefix=".draft-", dir=home))
        # mkdtemp makes folders for the owner only; the service may run as another user.
        self.folder.chmod(0o755)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        if self._lock is not None:
            self._lock.close()

    @property
    def header(self) -> dict[str, Any]:
        """What every manifest starts with; ``publish`` gives the version and lists the files."""
        return {
            "model": self.model,
            "version": 1,
            "created_utc": datetime.now(UTC),
            "files": {},
        }

    def publish(self, manifest: AnyManifest) -> Artifact:
        """Give the draft the next version number and put it in place with one rename.

        ``manifest.version`` and ``manifest.files`` are filled in here from what was written.
        Raises ManifestInvalid if the manifest then contradicts itself, UnsafePath for a file name
        that an artifact may not have.
        """
        files: dict[str, File] = {}
        for path in sorted(self.folder.iterdir()):
            _check_file_name(self.folder, path.name)
            if path.name == MANIFEST_FILE:
                raise UnsafePath(path, "publish writes the manifest; a draft may not bring one")
            with _open_plain(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                files[path.name] = File(sha256=digest, bytes=stream.tell())
            sync_file(path)
            path.chmod(0o644)
        version = self._next_version()
        if version > MAX_VERSION:
            raise PublishConflict(
                self.root / self.model, f"there is no number left: a version is over {MAX_VERSION}"
            )
        update = {"model": self.model, "version": version, "files": files}
        try:
            complete = MANIFEST.validate_python(manifest.model_dump() | {"files": {}} | update)
        except ValidationError as error:
            raise ManifestInvalid(self.folder / MANIFEST_FILE, str(error)) from None
        content = (complete.model_dump_json(indent=2) + "\n").encode()
        if len(content) > MANIFEST_LIMIT:
            raise ManifestInvalid(
                self.folder / MANIFEST_FILE, f"it is larger than {MANIFEST_LIMIT} bytes"
            )
        with (self.folder / MANIFEST_FILE).open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        (self.folder / MANIFEST_FILE).chmod(0o644)
        sync_folder(self.folder)
        target = self._place(version)
        return Artifact(target, complete, hashlib.sha256(content).hexdigest())

    def _next_version(self) -> int:
        """The number that the draft gets."""
        return max(list_versions(self.root, self.model), default=0) + 1

    def _place(self, version: int) -> Path:
        """Put the complete draft in its place; the folder where it then lies."""
        target = version_folder(self.root, self.model, version)
        self.folder.rename(target)
        sync_folder(target.parent)
        sync_folder(self.root)  # the model's own folder may be new
        self.published = str(target)
        return target


def is_model_name(name: str) -> bool:
    """May a model be called so?"""
    try:
        _model_name.validate_python(name)
    except ValidationError:
        return False
    return True


def is_version_number(name: str) -> bool:
    """Is it a number as versions have them: 1, 2, 3, …, written without zeros in front?"""
    return name.isdecimal() and name.isascii() and name[0] != "0"


def _check_file_name(folder: Path, name: str) -> None:
    try:
        _file_name.validate_python(name)
    except ValidationError:
        raise UnsafePath(
            folder / MANIFEST_FILE, f"{name!r:.80} is not a plain file name of this folder"
        ) from None


def _open_plain(path: Path) -> BufferedReader:
    """Open a regular file, following no symbolic link (it could lead anywhere)."""
    try:
        if path.is_symlink():
            raise UnsafePath(
                path, "it is a symbolic link, not a plain file; put the file itself there"
            )
        descriptor = open_plain(path)
    except FileNotFoundError:
        raise FileMissing(path, NOT_THERE) from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise UnsafePath(path, f"it is not a readable plain file ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePath(path, "it is not a plain file")
    return os.fdopen(descriptor, "rb")


def check_file(path: Path, expected: File, digest: str, size: int) -> None:
    """Compare a file's sha256 and size with those published. Raises HashMismatch."""
    if (digest, size) != (expected.sha256, expected.bytes):
        raise HashMismatch(
            path,
            f"its {size} bytes have sha256 {digest[:12]}…, "
            f"but {expected.bytes} bytes with {expected.sha256[:12]}… were published",
        )
