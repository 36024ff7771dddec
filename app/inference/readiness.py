"""Whether the service is ready: the reasons of `/readyz`, and the 503 of a request that cannot be served."""

import asyncio

from app.errors import Draining, NotReady, WorkerLost
from app.inference.engine import Engine
from app.scoreboard import Scoreboard


class Readiness:
    """The state of the process: loading, ready, shutting down, draining, failed or lost. Has the engine once loaded."""

    def __init__(self, scoreboard: Scoreboard | None = None) -> None:
        self.scoreboard = scoreboard or Scoreboard()
        self.settled = asyncio.Event()  # the models are loaded, or cannot be
        self._engine: Engine | None = None
        self._failure: str | None = None
        self._lost = False
        self._draining = False
        self.shutting_down = False

    def loaded(self, engine: Engine) -> None:
        """All models are loaded, checked and warm. After a reload, `engine` replaces the previous one."""
        self._engine = engine
        self.settled.set()

    def failed(self) -> None:
        """Loading failed."""
        self._failure = "loading the models failed; see the log"
        self.settled.set()

    def lost(self) -> None:
        """A worker ended or hangs; the process is about to exit."""
        self._failure, self._lost = "a worker is lost; the process is about to exit", True

    def begin_shutdown(self) -> None:
        """Report not ready, so that load balancers stop sending requests. Requests are still served."""
        self.shutting_down = True

    def drain(self) -> None:
        """Refuse new requests."""
        self.shutting_down = self._draining = True

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty if it is."""
        loading = None if self._engine is not None and self.scoreboard.was_ready else "loading the models"
        found = ("shutting down" if self.shutting_down else None, self._failure or loading)
        return [reason for reason in found if reason is not None]

    def error(self) -> Draining | NotReady | None:
        """The error of a readiness probe, None if the service is ready."""
        reasons = self.reasons()
        return (Draining if self.shutting_down else NotReady)("; ".join(reasons)) if reasons else None

    def engine(self) -> Engine:
        """The engine for a new request. Raises NotReady, Draining or WorkerLost."""
        if self._lost:
            raise WorkerLost
        if self._draining:
            raise Draining
        if self._engine is None:
            raise NotReady(self.reasons()[-1])
        return self._engine
