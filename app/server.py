"""uvicorn with a start, a reload and an end in order. Knows nothing of models or operations."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from socket import socket
from threading import Thread
from time import monotonic, sleep
from types import FrameType
from typing import NoReturn

import uvicorn

from app.descriptors import BACKLOG
from app.inference.readiness import Readiness
from app.main import create_app
from app.protocol import Limits, within
from app.settings import Settings

log = logging.getLogger("app")

KEEP_ALIVE_S = 30
# What answers get to leave the process when it fails, seconds at most.
FAILURE_GRACE_S = 5
# And how long callers are told that it has, each answer ending its connection, before connections are closed.
FAILURE_LAG_S = 0.5
TICK_S = 0.02
CLOSE = (b"connection", b"close")
# From the last connection accepted to the first one closed: what was sent meanwhile is read and answered.
SETTLE_S = 0.2
# The share of the grace after which nothing is waited for: an interpreter takes a moment to end.
ENDED_BY = 0.95
# The exit status of a process that was told to end twice.
FORCED = 1


class Server(uvicorn.Server):
    """A server that ends in order, within its grace, whoever holds connections; and knows whether the app failed."""

    def __init__(self, settings: Settings) -> None:
        self.readiness = Readiness()
        self.failed = False
        self._settings = settings
        self._reload = asyncio.Event()
        self._told_at: float | None = None  # to end, on the monotonic clock
        self._told: SimpleQueue[float] = SimpleQueue()  # the same, for the thread that waits for it
        self._lag_s = 0.0
        app = create_app(settings, readiness=self.readiness, reload=self._reload, on_failure=self._end)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=within(Limits(settings.receive_timeout_s, settings.max_connections)),
                # Measured: uvloop, which uvicorn prefers where it is installed, is no faster here.
                loop="asyncio",
                # Nothing here asks who the caller is, or whether a proxy spoke TLS.
                proxy_headers=False,
                ws="none",
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                access_log=False,
                log_config=None,
                server_header=False,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """SIGTERM and SIGINT: not ready from here on; a second one ends at once.

        Nobody looks to readiness before pressing Ctrl-C, so only SIGTERM has a lag.
        """
        if self._told_at is not None:
            log.warning("told to end twice: ending at once")
            leave(FORCED)
        self._told_at = monotonic()
        self._told.put(self._told_at)  # which a signal may interrupt at any point, as it can no lock
        self._lag_s = self._settings.shutdown_lag_s if sig == signal.SIGTERM else 0.0
        self.readiness.leave()
        self._end_connections()
        self.should_exit = True

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and reload the models at SIGHUP."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload.set)
        Thread(target=self._end_in_time, name="grace", daemon=True).start()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Serve until told to end, or not at all where loading failed before the server listened."""
        self.should_exit = self.should_exit or self.failed
        await super().main_loop()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:  # noqa: ARG002
        """Lag, refuse, finish, cut off: all of it within the grace from the signal.

        uvicorn's own waits for every connection to be closed, for ever by default: one half of a request holds it.
        """
        grace = FAILURE_GRACE_S if self.failed else self._settings.shutdown_grace_s
        told_at = monotonic() if self._told_at is None else self._told_at
        end = told_at + grace * ENDED_BY
        # So that who still waits can be told, and the lifespan has time to end.
        cut = end - min(1.0, grace / 10)
        state = self.server_state
        self._end_connections()
        lag = FAILURE_LAG_S if self.failed else self._lag_s
        await asyncio.sleep(min(told_at + lag, cut) - monotonic())
        self.readiness.drain()
        await self._stop_listening()
        # Whoever has just asked is told: a connection that is closed with a request unread is reset.
        await asyncio.sleep(min(monotonic() + SETTLE_S, cut) - monotonic())
        for connection in list(state.connections):
            connection.shutdown()
        await until(lambda: not state.tasks and not state.connections, cut)
        if state.tasks:
            log.warning("%d requests are cut off: the grace is over", len(state.tasks))
        for task in list(state.tasks):
            task.cancel()
        await until(lambda: not state.tasks, (cut + end) / 2)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self.lifespan.shutdown()

    def _end_in_time(self) -> None:
        """End the process when its grace is over, also where the event loop never gets to do so."""
        told_at = self._told.get()
        sleep(max(0.0, told_at + self._settings.shutdown_grace_s - monotonic()))
        os._exit(0)  # not `leave`: whatever keeps the loop may hold the log's lock

    def _end_connections(self) -> None:
        """Each answer from now on ends its connection, so that the next request goes to somebody else."""
        if CLOSE not in self.config.encoded_headers:
            self.config.encoded_headers.append(CLOSE)  # of which uvicorn makes the others anew every second
            self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]

    async def _stop_listening(self) -> None:
        """Take no more connections, but those that the system has made already: closing would reset them."""
        loop, config = asyncio.get_running_loop(), self.config
        listeners = [listener.dup() for server in self.servers for listener in server.sockets]
        for server in self.servers:
            server.close()
        waiting = []
        for listener in listeners:
            with listener, suppress(OSError):
                listener.setblocking(False)
                while True:
                    waiting.append(listener.accept()[0])
        for connection in waiting:
            await loop.connect_accepted_socket(
                lambda: config.http_protocol_class(  # type: ignore[call-arg]
                    config=config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                connection,
            )

    def _end(self) -> None:
        self.failed = True
        # Told to end before it has started, uvicorn leaves without ending the lifespan.
        self.should_exit = self.started


async def until(condition: Callable[[], bool], end: float) -> None:
    """Wait for the condition, at most until the monotonic clock shows `end`."""
    # Connections are a set of uvicorn's, which tells nobody when it changes.
    while not condition() and (left := end - monotonic()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(min(TICK_S, left))


def leave(status: int) -> NoReturn:
    """End the process, whatever its threads do: one that hangs in native code would hold the interpreter for ever."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
