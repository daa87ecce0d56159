"""The command line of the service: what ``python -m service`` runs once its environment is set."""

import argparse
import logging
import os
import sys

from pydantic import ValidationError

from service.app import create_app, make_registry
from service.lifecycle import Board, Lifecycle
from service.runtime.registry import Registry
from service.server import memory
from service.server.cores import available_cores
from service.server.worker import Server
from service.server.workers import Supervisor, bind
from service.settings import Settings
from service.web.access import UnsafeKey

log = logging.getLogger("gradserve")


def main() -> int:
    """Read the command line and the settings, and serve; the exit status."""
    options = _parse()
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = "_".join(["GRADSERVE", *(str(part) for part in item["loc"][:1])]).upper()
            print(f"{name}: {item['msg']}", file=sys.stderr)
        return 2
    memory.settle()
    registry = make_registry(settings)
    lifecycle = Lifecycle(Board(options.workers))
    try:
        app = create_app(settings, lifecycle, registry)
    except UnsafeKey as error:
        print(f"GRADSERVE_API_KEY_FILE: {error}", file=sys.stderr)
        return 2
    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1

    def serve() -> None:
        Server(app, listener, settings, lifecycle).run()

    host = f"[{options.host}]" if ":" in options.host else options.host
    port = listener.getsockname()[1]
    log.info("serving on http://%s:%d with %d workers", host, port, options.workers)
    _preload(registry, settings)
    return Supervisor(listener, lifecycle, settings, serve).run()


def _preload(registry: Registry, settings: Settings) -> None:
    """Load the models once for all workers, who then start at once and share their memory.

    Only what a fork can inherit: a session of one thread on the CPU has no threads, and no device.
    Otherwise, and for versions that are published later, each worker loads for itself. Those who
    connect meanwhile wait.
    """
    if settings.session_threads > 1 or settings.providers != ("CPUExecutionProvider",):
        return
    try:
        registry.refresh()
    except Exception:
        log.exception("could not look at %s; the workers will try again", settings.artifacts)
    memory.give_back()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the artifacts over HTTP. Further settings: GRADSERVE_* variables.",
    )
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", "8000"))
    parser.add_argument(
        "--workers",
        type=int,
        default=os.environ.get("GRADSERVE_WORKERS", available_cores()),
        help="processes; by default one for each core that may be used",
    )
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    return options
