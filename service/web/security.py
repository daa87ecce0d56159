"""Headers that every answer carries, and the content policy of the pages."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everything a page needs comes from this host.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Swagger UI and Redoc write style attributes, and Redoc starts its search from a blob.
DOCUMENTATION = ("/docs", "/redoc")
DOCUMENTATION_POLICY = f"{CONTENT_POLICY}; style-src 'self' 'unsafe-inline'; worker-src blob:"

ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_PAGES = [
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class SecurityHeaders:
    """Adds the headers; those of pages only to HTML, the only place where they have an effect."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                headers.extend(ALWAYS)
                if _is_page(headers):
                    relaxed = scope["path"] in DOCUMENTATION
                    policy = DOCUMENTATION_POLICY if relaxed else CONTENT_POLICY
                    headers.append((b"content-security-policy", policy.encode()))
                    headers.extend(_PAGES)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _is_page(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:  # a generator would take three times as long
        if name == b"content-type":
            return value.startswith(b"text/html")
    return False
