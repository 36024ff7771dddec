"""`create_app(settings)`: the routes, and the lifespan that owns all state."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from app import __version__
from app.api import docs, health, models, studio
from app.api.admission import Admission
from app.api.middleware import CrossOrigin, Guard, RequestContext
from app.api.service_state import State
from app.api.uploads import Decoders
from app.errors import WorkerLost, install_error_handlers
from app.inference.limit import Limit
from app.inference.loading import Loader
from app.inference.readiness import Readiness
from app.metrics import Metrics
from app.open_inference import rest
from app.operations import routers
from app.settings import Settings, read_settings

if TYPE_CHECKING:
    from app.telemetry import Tracing

log = logging.getLogger(__name__)

# Request headers that a web page of another origin may send.
ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "X-Request-Id",
    "X-Request-Timeout",
    "traceparent",
)
# Response headers that a web page of another origin may read.
EXPOSED_HEADERS = (
    "ETag",
    "Retry-After",
    "X-Request-Id",
    "X-Model",
    "X-Model-Digest",
    "X-Precision",
    "X-Runtime",
    "X-Seed",
    "X-From-Seed",
    "X-To-Seed",
)

DESCRIPTION = """Generates, reconstructs, interpolates, upscales, scores and classifies small images with the loaded
models.

For one `digest` and one `runtime`, image *i* of seed *s* always has the same bytes, whatever else was requested. Errors
are `application/problem+json` (RFC 9457) with a stable `code`."""


def create_app(
    settings: Settings | None = None,
    *,
    readiness: Readiness | None = None,
    reload: asyncio.Event | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """An app that loads `settings.models_dir` when its lifespan starts, and again whenever `reload` is set.

    settings: by default those of `read_settings`. readiness: shared with the server, which starts the drain with it;
    has the scoreboard. on_failure: called after the cause was logged if the service cannot be ready or loses a worker.
    """
    settings = settings or read_settings()
    readiness = readiness or Readiness()
    limits = settings.limits | {"scrapes": health.MAX_SCRAPES}
    metrics = Metrics(readiness.scoreboard, limits, settings.grpc_port)
    tracing = _tracing() if settings.tracing else None
    # Passed only with tracing: the lowest supported version of FastAPI lacks this argument.
    telemetry: dict[str, Any] = {"telemetry": tracing.telemetry} if tracing else {}
    app = FastAPI(
        title="digits",
        summary="A generation microservice for small images",
        description=DESCRIPTION,
        version=__version__,
        redirect_slashes=False,
        openapi_url=None,  # served by app.api.docs
        lifespan=_lifespan(settings, readiness, metrics, reload or asyncio.Event(), on_failure, tracing),
        **telemetry,
    )
    # The innermost middleware first.
    key = settings.api_key.get_secret_value() if settings.api_key else None
    app.add_middleware(Admission, settings=settings, scoreboard=readiness.scoreboard)
    app.add_middleware(Guard, allowed_hosts=settings.allowed_hosts, key=key)
    if settings.cors_origins:
        app.add_middleware(
            CrossOrigin,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    trace = tracing.trace if tracing else None
    app.add_middleware(RequestContext, metrics=metrics, access_log=settings.access_log, trace=trace)
    install_error_handlers(app)
    for router in (*routers(), rest.router, models.router, health.router, rest.health, docs.router, studio.router):
        app.router.routes.extend(router.routes)  # FastAPI would match a request twice against included routers
    docs.describe(app, settings)
    return app


def _tracing() -> "Tracing":
    from app.telemetry import Tracing  # noqa: PLC0415 -- the extra

    return Tracing()


def _lifespan(
    settings: Settings,
    readiness: Readiness,
    metrics: Metrics,
    reload: asyncio.Event,
    on_failure: Callable[[], None],
    tracing: "Tracing | None",
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        metrics.service.ready = lambda: not readiness.reasons()
        scoreboard = readiness.scoreboard
        decoders = Decoders(settings, scoreboard)
        streams = Limit(settings.max_streams, scoreboard.counter("streams"), small=1, what="streams")
        loader = Loader(settings, readiness, metrics)
        # A task, so that the server listens while models are being loaded.
        running = asyncio.create_task(_run(loader, readiness, reload, on_failure))
        if scoreboard.served_by_others:  # leave connections to them until the models are loaded
            await readiness.settled.wait()
        try:
            yield State(
                settings=settings,
                metrics=metrics,
                readiness=readiness,
                decoders=decoders,
                streams=streams,
                scoreboard=scoreboard,
                tracing=tracing,
            )
        finally:
            readiness.drain()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await loader.close()
            decoders.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    return lifespan


async def _run(loader: Loader, readiness: Readiness, reload: asyncio.Event, on_failure: Callable[[], None]) -> None:
    """Load the models, reload them on request, until a worker is lost or the task is cancelled."""
    if not await loader.start():
        readiness.failed()
        on_failure()
        return
    reloading = asyncio.create_task(_reload_on_request(loader, reload))
    try:
        reason = await loader.watch()
    finally:
        reloading.cancel()
    log.error("cannot continue: %s", reason)
    readiness.lost()
    loader.fail(WorkerLost)
    on_failure()


async def _reload_on_request(loader: Loader, reload: asyncio.Event) -> None:
    while True:
        await reload.wait()
        reload.clear()
        await loader.reload()
