"""Which state the service is in: loading, ready, failed, leaving, draining or lost. Knows no HTTP."""

from app.errors import Draining, NotReady, WorkerLost
from app.inference.engine import Engine


class Readiness:
    """Holds the engine once there is one, and says why requests cannot be served while they cannot."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._failed = False
        self._lost = False
        self._draining = False
        self.leaving = False

    def loaded(self, engine: Engine) -> None:
        """Every model is loaded, checked and warm; after a reload, this engine serves instead of the one before."""
        self._engine = engine

    def failed(self) -> None:
        """Loading ended with an error."""
        self._failed = True

    def lost(self) -> None:
        """What computes is gone or hangs; the process is about to end."""
        self._lost = True

    def leave(self) -> None:
        """Not ready from now on: balancers are to go elsewhere. Who comes nevertheless is still served."""
        self.leaving = True

    def drain(self) -> None:
        """Take nothing new from now on."""
        self.leaving = self._draining = True

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        reasons = []
        if self.leaving:
            reasons.append("shutting down")
        if self._lost:
            reasons.append("a worker is lost; the process is about to end")
        if self._failed:
            reasons.append("loading the models failed; the log says why")
        elif self._engine is None:
            reasons.append("loading the models")
        return reasons

    def engine(self) -> Engine:
        """The engine, for a new request. Raises NotReady, Draining or WorkerLost."""
        if self._lost:
            raise WorkerLost("the service has failed and is about to start anew")
        if self._draining:
            raise Draining("the service is shutting down")
        if self._engine is None:
            raise NotReady(self.reasons()[-1])
        return self._engine
