"""Which state the service is in: loading, ready, failed or draining. Knows no HTTP."""

from app.errors import Draining, NotReady
from app.inference.engine import Engine


class Readiness:
    """Holds the engine once there is one, and says why requests cannot be served while they cannot."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._failed = False
        self.draining = False

    def loaded(self, engine: Engine) -> None:
        """Every model is loaded, checked and warm."""
        self._engine = engine

    def failed(self) -> None:
        """Loading ended with an error."""
        self._failed = True

    def drain(self) -> None:
        """Take nothing new from now on."""
        self.draining = True

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        reasons = []
        if self.draining:
            reasons.append("shutting down")
        if self._failed:
            reasons.append("loading the models failed; the log says why")
        elif self._engine is None:
            reasons.append("loading the models")
        return reasons

    def engine(self) -> Engine:
        """The engine, for a new request. Raises NotReady or Draining."""
        if self.draining:
            raise Draining("the service is shutting down")
        if self._engine is None:
            raise NotReady(self.reasons()[0])
        return self._engine
