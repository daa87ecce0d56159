"""Access control: API keys from a file, and the host names that requests may carry."""

import hmac
import logging
import os
import time
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from service.web.errors import problem_response

log = logging.getLogger("gradserve")

HEALTH = ("/health/", "/v2/health/")  # probes carry no key, and come by address instead of name
MIN_KEY_CHARACTERS = 16
RECHECK_SECONDS = 1.0  # between looks at the key file
# Whether a request carried a key; set in its scope where keys are asked for.
AUTHORIZED = "gradserve.authorized"
# How a key is sent, in the words of OpenAPI.
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class UnsafeKey(ValueError):
    """The key file can't be used as it is."""


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line, so that a new one can be added before the old one goes.

    A byte order mark, as Windows' editors write it, is no part of a key. Raises UnsafeKey if the
    file can't be read, is empty, or has a key that is too short.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").encode("ascii").decode().split()
    except (OSError, UnicodeError) as error:
        raise UnsafeKey(f"{path}: it can't be read ({error})") from None
    if not lines:
        raise UnsafeKey(f"{path}: it has no key")
    if min(map(len, lines)) < MIN_KEY_CHARACTERS:
        raise UnsafeKey(f"{path}: a key needs at least {MIN_KEY_CHARACTERS} characters")
    return tuple(line.encode() for line in lines)


class KeyFile:
    """The keys of a file, read again when it changes.

    A change that can't be used is reported, and the keys that were read before stay valid: a file
    that is being written must not lock everyone out. Raises UnsafeKey if the first reading fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._identity()
        self._keys = read_keys(path)
        self._checked = time.monotonic()

    def keys(self) -> tuple[bytes, ...]:
        """The current keys; a change of the file is noticed within a second."""
        now = time.monotonic()
        if now - self._checked >= RECHECK_SECONDS:
            self._checked = now
            seen = self._identity()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._keys = read_keys(self.path)
                except UnsafeKey as error:
                    log.error("the API keys stay as they were: %s", error)
                else:
                    log.info("read %d API keys from %s", len(self._keys), self.path)
        return self._keys

    def _identity(self) -> tuple[int, ...] | None:
        """Changes when the file is written or replaced; None if there is no file."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 a secret may be a symbolic link
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class ApiKey:
    """Lets a request pass that carries a key, as ``Authorization: Bearer`` or ``X-API-Key``."""

    def __init__(self, app: ASGIApp, file: KeyFile) -> None:
        self.app = app
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[AUTHORIZED] = self.has_key(scope)
        if scope[AUTHORIZED] or scope["path"].startswith(HEALTH):
            await self.app(scope, receive, send)
            return
        response = problem_response(
            401,
            "This service needs an API key: send it as Authorization: Bearer, or as X-API-Key",
            headers={"www-authenticate": "Bearer"},
        )
        await response(scope, receive, send)

    def has_key(self, scope: Scope) -> bool:
        """Does a request carry a key? Only its headers are looked at."""
        keys = self.file.keys()
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
            elif name == b"x-api-key":
                given = value.strip()
            else:
                continue
            # Compare with every key, each in constant time: the time taken reveals nothing.
            if sum(hmac.compare_digest(given, key) for key in keys):
                return True
        return False


class AllowedHosts:
    """Refuses requests for other host names than ours, which DNS rebinding attacks send."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower().encode() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH) or self.is_ours(scope):
            await self.app(scope, receive, send)
            return
        response = problem_response(400, "This host name is not served here")
        await response(scope, receive, send)

    def is_ours(self, scope: Scope) -> bool:
        """Is a request for one of our names? Only its headers are looked at."""
        names = [value for name, value in scope["headers"] if name == b"host"]
        if len(names) != 1:
            return False
        host = names[0].lower()
        name, _, port = host.rpartition(b":")
        return (name if port.isdigit() else host) in self.hosts
