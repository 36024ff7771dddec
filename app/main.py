"""`create_app(settings)`: the routes, and the lifespan that owns all state."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import docs, generate, health, interpolate, models, reconstruct, score
from app.api.admission import Admission, Refuse, RequestAdmission
from app.api.dependencies import ImageWorkers, State
from app.api.hosts import Hosts
from app.api.keys import require_key
from app.api.middleware import RequestContext
from app.api.shortcut import Shortcut
from app.errors import WorkerLost, install_error_handlers
from app.loading import Loader
from app.metrics import Metrics
from app.metrics_page import MetricsPage
from app.readiness import Readiness
from app.settings import Settings

log = logging.getLogger(__name__)

SEEDS = ("X-Seed", "X-From-Seed", "X-To-Seed")
# Headers of answers that a web page of another origin may read.
EXPOSED = ("ETag", "Retry-After", "X-Request-Id", "X-Model", "X-Model-Digest", "X-Precision", "X-Runtime", *SEEDS)

DESCRIPTION = """Generates, reconstructs, interpolates and scores small images with the models it was started with.

A seed is a byte string: for one `digest` and one `runtime`, image *i* of seed *s* is the same bytes whatever
else was asked. Errors are `application/problem+json` (RFC 9457) with a stable `code`."""


def create_app(
    settings: Settings,
    *,
    readiness: Readiness | None = None,
    reload: asyncio.Event | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """An app that loads `settings.models_dir` once its lifespan starts, and again whenever `reload` is set.

    `on_failure` is called when the service can never be ready (again), after the cause was logged; a server passes
    what ends the process. With `readiness` the caller can start draining.
    """
    readiness = readiness or Readiness()
    metrics = Metrics()
    admission = Admission(settings, metrics)
    # Where a refusal depends on the host or the origin that it names, the app has to make it.
    refuse = None if settings.cors_origins or settings.allowed_hosts else admission.refusal
    app = FastAPI(
        title="digits",
        summary="A generation microservice for small images",
        description=DESCRIPTION,
        version="0.1.0",
        redirect_slashes=False,
        # `api.docs` has the description and a page that loads nothing from another host.
        openapi_url=None,
        lifespan=_lifespan(settings, readiness, metrics, refuse, reload or asyncio.Event(), on_failure),
    )
    guards = [Depends(require_key(settings.api_key.get_secret_value()))] if settings.api_key else []
    # The innermost one first: a refusal passes all others but the shortcut, which leads past guards.
    if not guards:
        app.add_middleware(Shortcut, operations=generate.DIRECT | reconstruct.DIRECT)
    app.add_middleware(RequestAdmission, admission=admission)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type", "If-None-Match", "X-Request-Timeout"),
            expose_headers=EXPOSED,
        )
    app.add_middleware(RequestContext, metrics=metrics, hosts=Hosts(settings.allowed_hosts))
    install_error_handlers(app)
    for endpoint in (generate, reconstruct, interpolate, score, models, health):
        app.include_router(endpoint.router, dependencies=guards)
    app.include_router(health.probes)
    app.include_router(docs.router)
    return app


def _lifespan(
    settings: Settings,
    readiness: Readiness,
    metrics: Metrics,
    refuse: Refuse | None,
    reload: asyncio.Event,
    on_failure: Callable[[], None],
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        image_workers = ImageWorkers(settings.image_workers, settings.decode_workers, settings.max_waiting_uploads)
        page = MetricsPage(metrics.registry)
        metrics.ready.set_function(lambda: float(not readiness.reasons()))
        loader = Loader(settings, readiness, metrics)
        # A task, so that the server listens meanwhile: alive, and not ready.
        running = asyncio.create_task(_run(loader, readiness, reload, on_failure))
        try:
            yield State(
                settings=settings,
                metrics=metrics,
                metrics_page=page,
                readiness=readiness,
                image_workers=image_workers,
                refuse=refuse,
            )
        finally:
            readiness.drain()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await loader.close()
            image_workers.close()
            page.close()

    return lifespan


async def _run(loader: Loader, readiness: Readiness, reload: asyncio.Event, on_failure: Callable[[], None]) -> None:
    """Load, then reload whenever that is asked for, until a worker is lost or this is cancelled."""
    if not await loader.start():
        on_failure()
        return
    reloading = asyncio.create_task(_reload_when_asked(loader, reload))
    try:
        reason = await loader.watch()
    finally:
        reloading.cancel()
    log.error("cannot go on: %s", reason)
    readiness.lost()
    loader.fail(lambda: WorkerLost("the service has failed and is about to start anew"))
    on_failure()


async def _reload_when_asked(loader: Loader, reload: asyncio.Event) -> None:
    while True:
        await reload.wait()
        reload.clear()
        await loader.reload()
