"""The command line of the service: what ``python -m service`` runs once its environment is set."""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence
from typing import Any

from onnxruntime import get_available_providers
from pydantic import ValidationError

from contract import remote
from service.app import create_app, make_registry
from service.lifecycle import Board, Lifecycle
from service.runtime.registry import FIRST_LOOK_SECONDS, Registry
from service.runtime.verifying import VerifyingProcess
from service.server import memory
from service.server.cores import available_cores
from service.server.metrics_folder import MetricsFolder
from service.server.portable import missing_parts
from service.server.worker import Server
from service.server.workers import Supervisor, bind
from service.settings import Settings
from service.web import metrics
from service.web.access import UnsafeKey
from service.web.tracing import TracingUnavailable, check_installed

log = logging.getLogger("gradserve")

COMMAND_LINE = ("artifacts", "host", "port", "workers")  # the settings that are options as well


def main(folder: MetricsFolder | None = None, processes: Sequence[VerifyingProcess] = ()) -> int:
    """Read the command line and the settings, serve, and return the exit status.

    ``folder`` is where the workers keep their Prometheus metrics; ``processes`` are running
    already, to verify versions.
    """
    try:
        settings = Settings(**_parse())
    except ValidationError as error:
        print("\n".join(_sentences(error)), file=sys.stderr)
        return 2
    lacking = _lacking(settings)
    if lacking:
        print(lacking, file=sys.stderr)
        return 2
    memory.configure_malloc()
    registry = make_registry(settings)
    registry.verifier.prepare(processes)
    missing = missing_parts()
    workers = 1 if missing else settings.workers or available_cores()
    lifecycle = Lifecycle(Board(workers))
    try:
        app = create_app(settings, lifecycle, registry)
    except UnsafeKey as error:
        print(f"GRADSERVE_API_KEY_FILE: {error}", file=sys.stderr)
        return 2
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        host, port = settings.host, settings.port
        print(f"Cannot listen on {host}:{port}: {error}. {_remedy(error)}", file=sys.stderr)
        return 1

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    log.info("serving on http://%s:%d with %d workers", host, port, workers)
    server = Server(app, listener, settings, lifecycle, alone=bool(missing))
    if missing:
        log.info("one process without a supervisor: this system has no %s", ", ".join(missing))
        server.run()
        return 0
    if folder is not None and folder.path is None and workers > 1:
        metrics.switch_off(f"there is no room for them in {folder.reason}")
    _preload(registry, settings)
    return Supervisor(listener, lifecycle, settings, server.run).run()


def _lacking(settings: Settings) -> str:
    """What a setting asks for that this installation can't do; empty if there is nothing."""
    if settings.store:
        reason = remote.unusable(settings.store)
        if reason:
            return f"GRADSERVE_ARTIFACTS (--artifacts): {settings.store}: {reason}"
    if settings.otlp_endpoint:
        try:
            check_installed()
        except TracingUnavailable as error:
            return str(error)
    there = get_available_providers()
    if not set(settings.providers) <= set(there):
        return (
            f"GRADSERVE_PROVIDERS: {', '.join(settings.providers)} is not what ONNX Runtime has "
            f"here; it has: {', '.join(there)}"
        )
    return ""


def _preload(registry: Registry, settings: Settings) -> None:
    """Load the models once, before forking: the workers then start at once and share the memory.

    Each worker loads later versions for itself. Clients that connect meanwhile wait a few seconds
    at most: versions that take longer to verify are left to the workers.
    """
    if not _can_preload(settings):
        registry.close()  # a fork inherits neither threads nor processes
        return
    try:
        registry.refresh(FIRST_LOOK_SECONDS)
    except Exception:
        log.exception("could not look at %s; the workers will try again", settings.artifacts)
    finally:
        registry.close()
    memory.trim_heap()


def _can_preload(settings: Settings) -> bool:
    """Only sessions of one thread on the CPU survive a fork: threads and devices do not."""
    return settings.session_threads == 1 and settings.providers == ("CPUExecutionProvider",)


def _parse() -> dict[str, Any]:
    """Settings from the command line; they take precedence over the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the artifacts over HTTP. Further settings: GRADSERVE_* variables.",
    )
    for name in COMMAND_LINE:
        field = Settings.model_fields[name]
        default = "" if field.default is None else f"; {field.default} by default"
        parser.add_argument(f"--{name}", help=f"{field.description}{default}")
    given = vars(parser.parse_args())
    return {name: value for name, value in given.items() if value is not None}


def _sentences(error: ValidationError) -> list[str]:
    """An error message for each wrong setting, with its variable and its option."""
    sentences = []
    for item in error.errors(include_url=False, include_input=False):
        message = item["msg"].removeprefix("Value error, ")
        name = str(item["loc"][0]) if item["loc"] else ""
        option = f" (--{name})" if name in COMMAND_LINE else ""
        sentences.append(f"GRADSERVE_{name.upper()}{option}: {message}" if name else message)
    return sentences


def _remedy(error: OSError) -> str:
    """What to do when the address can't be listened on."""
    if error.errno == errno.EADDRINUSE:
        return "Choose another port with --port or GRADSERVE_PORT"
    if error.errno == errno.EACCES:
        return "Ports under 1024 need root; choose another with --port or GRADSERVE_PORT"
    return "Choose another address with --host or GRADSERVE_HOST, such as 127.0.0.1"
