"""The state of the service, as requests see it."""

from typing import TYPE_CHECKING, TypedDict, cast

from starlette.requests import Request

from app.api.uploads import Decoders
from app.inference.limit import Limit
from app.inference.readiness import Readiness
from app.metrics import Metrics
from app.scoreboard import Scoreboard
from app.settings import Settings

if TYPE_CHECKING:
    from app.telemetry import Tracing


class State(TypedDict):
    """State owned by the lifespan and shared by all requests."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    decoders: Decoders
    scoreboard: Scoreboard
    streams: Limit
    tracing: "Tracing | None"


def state_of(request: Request) -> State:
    """The state of the service."""
    return cast(State, request.scope["state"])
