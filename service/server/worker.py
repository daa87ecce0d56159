"""One worker: uvicorn's server with even accepting, deadlines, and a drain that loses nothing."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from service.lifecycle import Lifecycle
from service.server import memory
from service.server.accept import Acceptor
from service.server.intake import Intake
from service.server.portable import shutdown_signals
from service.server.protocol import Protocol
from service.settings import Settings

log = logging.getLogger("gradserve")

TICKS_A_SECOND = 10  # of uvicorn's main loop


class Server(uvicorn.Server):
    """Serves ``app`` on ``listener`` until told to stop.

    SIGTERM, SIGHUP or SIGQUIT turns readiness off; after ``drain_delay_seconds``, in which load
    balancers notice, it takes no more connections, answers what it has accepted, and ends. SIGINT
    skips the delay. ``alone`` serves without a supervisor, on any event loop.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        settings: Settings,
        lifecycle: Lifecycle,
        *,
        alone: bool = False,
    ) -> None:
        self.settings = settings
        self.lifecycle = lifecycle
        self.listener = listener
        self.alone = alone
        self.acceptor: Acceptor | None = None
        self.stop_at: float | None = None
        self.requests_seen = 0  # a second ago
        self.resident = 0  # bytes, when memory was last given back, or since if fewer
        bound = {"service_settings": settings, "lifecycle": lifecycle, "intake": Intake()}
        protocol = type("BoundProtocol", (Protocol,), bound)
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop" if find_spec("uvloop") else "asyncio",
                http=protocol,
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGHUP and SIGQUIT as uvicorn does SIGTERM, and what has come since the fork."""
        signals = shutdown_signals()
        with super().capture_signals():
            before = {number: signal.signal(number, self.handle_exit) for number in signals}
            if not self.alone:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {*signals, signal.SIGCHLD})
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Start the application, which loads the models, then accept."""
        if self.alone:
            await super().startup([self.listener])
            return
        beat = asyncio.create_task(self._send_heartbeats())
        await self.lifespan.startup()
        beat.cancel()
        if self.lifespan.should_exit:
            sys.exit(1)
        connections = self.server_state.connections

        def make_protocol() -> Protocol:
            protocol: Protocol = self.config.http_protocol_class(  # type: ignore[assignment,call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            return protocol

        def count() -> int:
            self._heartbeat()
            return len(connections)

        self.listener.setblocking(False)
        self.acceptor = Acceptor(self.listener, make_protocol, count, self.lifecycle)
        self.servers = [self.acceptor]  # type: ignore[list-item]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: send a heartbeat, check deadlines, stop when it is time."""
        self._heartbeat()
        now = time.monotonic()
        if counter % TICKS_A_SECOND == 0:
            for connection in list(self.server_state.connections):
                connection.check_deadlines(now)  # type: ignore[union-attr]
            self._trim_heap_when_idle()
            parent_has_gone = not self.alone and os.getppid() != self.lifecycle.parent
            if parent_has_gone and self.stop_at is None:
                log.warning("the parent process has gone")
                self.handle_exit(signal.SIGINT, None)
        if self.stop_at is not None and now >= self.stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain. uvicorn's own would end the process by the signal, not with 0."""
        delay = 0.0 if sig == signal.SIGINT else self.settings.drain_delay_seconds
        self.lifecycle.draining = True
        stop_at = time.monotonic() + delay
        self.stop_at = stop_at if self.stop_at is None else min(self.stop_at, stop_at)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted; cut off what is not done within ``drain_seconds``."""
        timer = asyncio.get_running_loop().call_later(
            self.settings.drain_seconds, self._abort_connections
        )
        if self.acceptor is not None:
            await self.acceptor.drain()
        await super().shutdown(sockets)
        timer.cancel()

    def _trim_heap_when_idle(self) -> None:
        """After a second without requests, return memory to the system if there is much."""
        state = self.server_state
        if state.total_requests == self.requests_seen and not state.tasks:
            now = memory.resident()
            if now > self.resident + memory.SPARE_BYTES:
                memory.trim_heap()
                self.resident = memory.resident()
            else:
                self.resident = min(self.resident, now)
        self.requests_seen = state.total_requests

    def _abort_connections(self) -> None:
        connections = list(self.server_state.connections)
        log.warning("cutting off %d connections that did not end in time", len(connections))
        for connection in connections:
            connection.transport.abort()

    async def _send_heartbeats(self) -> None:
        """Send heartbeats until the main loop does."""
        while True:
            self._heartbeat()
            await asyncio.sleep(0.1)

    def _heartbeat(self) -> None:
        self.lifecycle.board.write(self.lifecycle.worker, len(self.server_state.connections))
