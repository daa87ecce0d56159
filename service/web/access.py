"""Who may ask: an API key from a file, and the host names that requests may carry."""

import hmac
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from service.web.errors import problem_response

HEALTH = "/health/"  # probes carry no key, and come by address instead of name
MIN_KEY_CHARACTERS = 16
# How a key is sent, in the words of OpenAPI.
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class UnsafeKey(ValueError):
    """The key file can't be used as it is."""


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line, so that a new one can be added before the old one goes.

    Raises UnsafeKey if the file can't be read, is empty, or has a key that is too short.
    """
    try:
        lines = path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UnsafeKey(f"{path}: it can't be read ({error})") from None
    if not lines:
        raise UnsafeKey(f"{path}: it has no key")
    if min(map(len, lines)) < MIN_KEY_CHARACTERS:
        raise UnsafeKey(f"{path}: a key needs at least {MIN_KEY_CHARACTERS} characters")
    return tuple(line.encode() for line in lines)


class ApiKey:
    """Lets a request pass that carries a key, as ``Authorization: Bearer`` or ``X-API-Key``."""

    def __init__(self, app: ASGIApp, keys: tuple[bytes, ...]) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH) or self._has_key(scope):
            await self.app(scope, receive, send)
            return
        response = problem_response(
            401,
            "This service needs an API key: send it as Authorization: Bearer, or as X-API-Key",
            headers={"www-authenticate": "Bearer"},
        )
        await response(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
            elif name == b"x-api-key":
                given = value.strip()
            else:
                continue
            # All are compared, each in constant time: how long it takes tells nothing.
            if sum(hmac.compare_digest(given, key) for key in self.keys):
                return True
        return False


class AllowedHosts:
    """Refuses requests for host names other than ours, as those of DNS rebinding."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower().encode() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH) or self._is_ours(scope):
            await self.app(scope, receive, send)
            return
        response = problem_response(400, "This host name is not one that is served here")
        await response(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        names = [value for name, value in scope["headers"] if name == b"host"]
        if len(names) != 1:
            return False
        host = names[0].lower()
        name, _, port = host.rpartition(b":")
        return (name if port.isdigit() else host) in self.hosts
