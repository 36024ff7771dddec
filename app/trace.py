"""The trace of a request, to which the parts of the service report their steps. `app.telemetry` exports traces."""

from contextvars import ContextVar
from typing import Protocol


class Trace(Protocol):
    """The trace of one request."""

    @property
    def id(self) -> str:
        """The trace id: 32 hexadecimal digits."""

    def step(self, name: str, started: float, ended: float, **attributes: str | int) -> None:
        """Record a step that has ended. started, ended: on the monotonic clock."""


# The trace of the request that the current task serves; None if it is not traced.
TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
