"""The service as an application of Ray Serve: `serve run app.server.ray_serve:application`. Needs the extra `ray`.

A replica is one process of the service. Settings come from the environment of the replica; those of the address, of
processes and of connections have no effect, as Ray listens and supervises.
"""

from typing import Any

from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.inference.readiness import Readiness
from app.main import create_app
from app.settings import read_settings


@serve.ingress()
class Digits:
    """A replica. It takes requests once its models are loaded, and is replaced when it can no longer serve."""

    def __init__(self) -> None:
        self._readiness = Readiness()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app for Ray Serve. Raises BadSettings."""
        return with_lifespan_state(create_app(read_settings(), readiness=self._readiness), self._readiness)

    def check_health(self) -> None:
        """Called by Ray Serve. Raises RuntimeError with the reasons for which the replica cannot serve."""
        if reasons := self._readiness.reasons():
            raise RuntimeError("; ".join(reasons))


def application(_: dict[str, str]) -> serve.Application:
    """The application. Requests beyond `DIGITS_MAX_REQUESTS` wait in Ray's proxy."""
    return serve.deployment(Digits).options(max_ongoing_requests=read_settings().max_requests).bind()


def with_lifespan_state(app: ASGIApp, readiness: Readiness) -> ASGIApp:
    """The app with the lifespan's state in the scope of each request, which Ray Serve omits.

    The startup completes when the models are loaded, or fails if they cannot be.
    """
    state: dict[str, Any] = {}

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_when_loaded(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await readiness.settled.wait()
                if reasons := readiness.reasons():
                    message = {"type": "lifespan.startup.failed", "message": "; ".join(reasons)}
            await send(message)

        if scope["type"] == "lifespan":
            await app({**scope, "state": state}, receive, send_when_loaded)
        else:
            await app({**scope, "state": dict(state)}, receive, send)

    return with_state
