"""A real browser on the real service, which runs as a process over the repository's artifacts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.server_process import ROOT, ServerProcess

CHROMIUM = Path("/usr/bin/chromium")  # Debian's
ARTIFACTS = ROOT / "artifacts"
MODELS = (
    "cifar-baseline",
    "cifar-fast",
    "cifar-improved",
    "curve-gp",
    "curve-mlp",
    "curve-poly",
    "sigmoid-conv",
)
PHONE = 360  # pixels of width


@dataclass
class Visit:
    """A page that was opened, and what it did that a person would not see."""

    page: Page
    server: ServerProcess
    address: str
    console: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str = "/") -> Page:
        """Go to a page of the service and wait until it has started."""
        self.page.goto(self.address + path)
        if path == "/":
            self.page.wait_for_selector("html[data-started]")
        return self.page

    def expect_refusals(self) -> None:
        """The browser notes each refused request; forget those, and nothing else."""
        self.console = [line for line in self.console if "Failed to load resource" not in line]


Visitor = Callable[..., Any]


# Playwright keeps an event loop running in this thread, in which asyncio.run of later tests would
# fail: the browser goes with each file.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    missing = [m for m in MODELS if not any((ARTIFACTS / m).glob("*/manifest.json"))]
    if missing:
        pytest.skip(f"not published yet: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "artifacts").symlink_to(ARTIFACTS)  # the server's log is written beside it
    with ServerProcess(folder / "artifacts") as process:
        yield process.wait_ready()


@pytest.fixture(scope="module")
def visitor(chromium: Browser) -> Visitor:
    """Opens a page as ``visitor(server, width=…, color_scheme=…)``; checks it when it closes."""

    @contextmanager
    def visit(server: ServerProcess, width: int = 1180, **options: Any) -> Iterator[Visit]:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            permissions=["camera", "clipboard-read", "clipboard-write"],
            **options,
        )
        context.set_default_timeout(15_000)
        opened = Visit(context.new_page(), server, f"http://127.0.0.1:{server.port}")

        def note(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in {"data", "blob"}:
                opened.hosts.add(parts.netloc)

        context.on("request", note)
        context.on(
            "console",
            lambda message: (
                opened.console.append(message.text) if message.type == "error" else None
            ),
        )
        opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
        yield opened
        context.close()
        assert opened.console == []
        assert opened.hosts <= {f"127.0.0.1:{server.port}"}

    return visit


@pytest.fixture
def visit(visitor: Visitor, server: ServerProcess) -> Iterator[Visit]:
    with visitor(server) as opened:
        yield opened


def shown(text: str | None) -> float:
    """A number as the page writes it."""
    assert text is not None
    return float(text.replace("−", "-"))
