"""Errors of artifacts and pictures, with messages for people."""

import os
from pathlib import Path


class ArtifactError(Exception):
    """An artifact cannot be used. ``path`` is the file or folder, ``reason`` says why.

    Of an artifact in an object store, ``path`` is its address.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        # A name on disk need not be UTF-8; the message must print and travel in JSON all the same.
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        super().__init__(f"{shown}: {reason}")
        self.path = path
        self.reason = reason


class ManifestMissing(ArtifactError):
    """The version folder has no manifest.json, so it was never published whole."""


class ManifestInvalid(ArtifactError):
    """manifest.json is not valid JSON, or not a manifest of a known kind."""


class UnknownSchema(ArtifactError):
    """The manifest was written to a schema that this program does not know."""


class FileMissing(ArtifactError):
    """A file that the manifest lists is not there."""


class FileUnlisted(ArtifactError):
    """A file is there that the manifest does not list."""


class HashMismatch(ArtifactError):
    """A file's bytes are not those that were published."""


class UnsafePath(ArtifactError):
    """A name leads out of the artifact's folder, or is not a plain file."""


class PublishConflict(ArtifactError):
    """Another process is publishing the same model."""


class VersionNotFound(ArtifactError):
    """No such model, or no such version of it."""


class StoreUnavailable(ArtifactError):
    """The object store can't be read or written; ``path`` is its address."""


class PictureError(Exception):
    """A picture can't be read. ``detail`` says why, for a person."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PictureDamaged(PictureError):
    """The file is of a format that is read here, but its content is broken."""


class PictureTooLarge(PictureError):
    """Decoding it would go over a limit."""


class PictureUnsupported(PictureError):
    """The file is of no format, or no variant of one, that is read here."""
