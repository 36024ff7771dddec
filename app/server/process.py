"""The server process: uvicorn's configuration, reload at SIGHUP, and drain at SIGTERM within a deadline."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Callable
from socket import socket
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, cast

import uvicorn

from app.api.service_state import State
from app.inference.readiness import Readiness
from app.main import create_app
from app.scoreboard import Scoreboard
from app.server.accepting import Acceptor
from app.server.protocol import BoundedHttpProtocol, Limits, UnsupportedUvicorn, bounded_protocol
from app.settings import Settings

if TYPE_CHECKING:
    from app.open_inference.grpc_server import GrpcServer

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 30
HEARTBEAT_S = 1
CLOSE = (b"connection", b"close")
# Seconds in which requests may finish after the service has failed.
FAILURE_GRACE_S = 5
# Seconds after a failure in which requests on open connections are refused; each response closes its connection.
FAILURE_LAG_S = 1.0
# Before connections are closed, pending requests are read. The wait is counted in steps, because reading takes several
# turns of the event loop, however busy the machine is. New connections get more steps, for their first request.
SETTLE_STEPS, FIRST_REQUEST_STEPS, SETTLE_STEP_S = 8, 50, 0.02
# The part of the grace period in which requests may finish. The rest is for cancelling the others and for the lifespan.
FINISH_SHARE = 0.8
# The exit status of a process that received two signals to end.
FORCED = 1


class Server(uvicorn.Server):
    """A server that shuts down within its grace period, whatever clients do. `failed`: the app called `on_failure`."""

    def __init__(
        self,
        settings: Settings,
        listener: socket,
        scoreboard: Scoreboard | None = None,
        heartbeat: Callable[[], None] | None = None,
    ) -> None:
        """heartbeat: tells the supervisor, if there is one, that the event loop runs. Raises UnsupportedUvicorn."""
        scoreboard = scoreboard or Scoreboard()
        self.readiness = Readiness(scoreboard)
        self.failed = False
        self._settings = settings
        self._listener = listener
        self._scoreboard = scoreboard
        self._heartbeat = heartbeat
        self._reload = asyncio.Event()
        self._lag_s = 0.0
        self._grpc: GrpcServer | None = None
        app = create_app(
            settings,
            readiness=self.readiness,
            reload=self._reload,
            on_failure=self._fail,
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(
                    Limits(settings.receive_timeout_s, settings.max_connections), scoreboard.counter("connections")
                ),
                # uvicorn prefers uvloop if it is installed, which was measured to be no faster here.
                loop="asyncio",
                # The app uses neither the client's address nor the scheme.
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                access_log=False,
                log_config=None,
                server_header=False,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle SIGTERM and SIGINT: report not ready and shut down; at the second signal exit immediately.

        Only SIGTERM has a lag, because Ctrl-C has no load balancer that reads readiness. A supervisor forwards the
        terminal's signal to all processes as SIGTERM, and requests an immediate exit by other means.
        """
        if self.should_exit:
            if self._heartbeat is None:
                os._exit(FORCED)
            return
        if sig == signal.SIGTERM:
            self._lag_s = self._settings.shutdown_lag_s
        self.readiness.begin_shutdown()
        self._end_within(self._settings.shutdown_grace_s)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and reload the models at SIGHUP."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        if self._heartbeat is not None:
            self._beating = loop.create_task(self._beat(self._heartbeat))
        await super().startup(sockets)
        self._acceptor = Acceptor(self._listener, self._protocol, self._scoreboard)
        if not self.failed:
            self._acceptor.start()
            await self._start_grpc()

    async def _start_grpc(self) -> None:
        """Serve gRPC too, if there is a port for it."""
        if (port := self._settings.grpc_port) is None:
            return
        from app.open_inference.grpc_server import CannotServe, GrpcServer  # noqa: PLC0415 -- an extra

        server = GrpcServer(cast(State, self.lifespan.state))
        try:
            await server.start(self._settings.host, port)
        except CannotServe as error:
            log.error("cannot start: %s", error)
            self._fail()
        else:
            self._grpc = server

    async def _beat(self, heartbeat: Callable[[], None]) -> None:
        """Once a second, tell the supervisor that the event loop runs, and shut down if the supervisor has ended."""
        supervisor = os.getppid()
        while True:
            heartbeat()
            await asyncio.sleep(HEARTBEAT_S)
            if os.getppid() != supervisor and not self.should_exit:
                log.error("the supervisor has ended")
                self.readiness.begin_shutdown()
                self._end_within(self._settings.shutdown_grace_s)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Serve during the lag, then refuse new requests, finish accepted ones, and cancel the rest."""
        self._close_connections()
        finish_s = FINISH_SHARE * (FAILURE_GRACE_S if self.failed else self._settings.shutdown_grace_s)
        if self.failed and self._scoreboard.served_by_others:
            self._acceptor.stop(leave_rest=True)
        lag_s = min(FAILURE_LAG_S if self.failed else self._lag_s, finish_s / 2)
        await asyncio.sleep(lag_s)
        self.readiness.drain()
        self._acceptor.stop(leave_rest=False)
        await self._settle()
        self.config.timeout_graceful_shutdown = max(0, int(finish_s - lag_s))
        if self._grpc is not None:
            before = monotonic()
            await self._grpc.stop(self.config.timeout_graceful_shutdown)
            self.config.timeout_graceful_shutdown -= int(monotonic() - before)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """The protocol of a connection, as uvicorn makes it at startup."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _settle(self) -> None:
        """Read what clients have sent, and the first request of those that have connected."""
        for step in range(FIRST_REQUEST_STEPS):
            await asyncio.sleep(SETTLE_STEP_S)
            if step >= SETTLE_STEPS and not any(connection.is_new for connection in self._connections()):
                break

    def _connections(self) -> list[BoundedHttpProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, BoundedHttpProtocol)]

    def _close_connections(self) -> None:
        """Make each response close its connection, so that the next request goes elsewhere."""
        if CLOSE not in self.server_state.default_headers:
            self.server_state.default_headers.append(CLOSE)
        # uvicorn replaces the list every second, so requests that began earlier hold another one.
        for connection in self._connections():
            connection.close_after_response()

    def _fail(self) -> None:
        self.failed = True
        self._close_connections()
        self._end_within(FAILURE_GRACE_S)

    def _end_within(self, seconds: int) -> None:
        self.should_exit = True
        # This thread does not need the interpreter: it also ends a process that hangs in the event loop or in native
        # code, with status 1, and prints where. It takes no lock, so that a signal handler may call this at any point.
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True)


def freeze() -> None:
    """Exclude imported objects from garbage collection.

    PyTorch alone has 200,000 of them; a full collection stopped the event loop for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    # By default the collector runs every 700 allocations, which takes three per cent of the time of a small request.
    gc.set_threshold(20_000, 20, 20)


def serve(settings: Settings, listener: socket) -> int:
    """Serve in this process, without a supervisor, until a signal ends it. Returns the exit status."""
    try:
        server = Server(settings, listener)
    except UnsupportedUvicorn as error:
        log.error("cannot start: %s", error)
        return 1
    freeze()
    server.run(sockets=[])  # it accepts by itself
    return 0 if server.started and not server.failed else 1
