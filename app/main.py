"""`create_app(settings)`: the routes, and the lifespan that owns all state."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import docs, generate, health, interpolate, models, reconstruct, score
from app.api.dependencies import ImageWorkers, State
from app.api.hosts import Hosts
from app.api.keys import require_key
from app.api.middleware import RequestContext
from app.checkpoints.store import CheckpointError, load_models
from app.errors import install_error_handlers
from app.inference.engine import Engine
from app.inference.machine import DeviceUnavailable
from app.inference.runtime import Runtime
from app.metrics import Metrics
from app.readiness import Readiness
from app.settings import Settings

log = logging.getLogger(__name__)

# Headers of answers that a web page of another origin may read.
EXPOSED = ("ETag", "Retry-After", "X-Request-Id", "X-Model", "X-Model-Digest", "X-Precision", "X-Runtime", "X-Seed")

DESCRIPTION = """Generates, reconstructs, interpolates and scores small images with the models it was started with.

A seed is a byte string: for one `digest` and one `runtime`, image *i* of seed *s* is the same bytes whatever
else was asked. Errors are `application/problem+json` (RFC 9457) with a stable `code`."""


def create_app(
    settings: Settings,
    *,
    readiness: Readiness | None = None,
    on_load_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """An app that loads `settings.models_dir` once its lifespan starts.

    `on_load_failure` is called after the cause was logged; a server passes what ends the process. With
    `readiness` the caller can start draining.
    """
    readiness = readiness or Readiness()
    metrics = Metrics()
    app = FastAPI(
        title="digits",
        summary="A generation microservice for small images",
        description=DESCRIPTION,
        version="0.1.0",
        redirect_slashes=False,
        # Its own page loads scripts from another host, and its routes have no dependencies.
        openapi_url=None,
        lifespan=_lifespan(settings, readiness, metrics, on_load_failure),
    )
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
    key = settings.api_key
    guards = [Depends(require_key(key.get_secret_value()))] if key else []
    for endpoint in (generate, reconstruct, interpolate, score, models, health, docs):
        app.include_router(endpoint.router, dependencies=guards)
    app.include_router(health.probes)
    return app


def _lifespan(
    settings: Settings, readiness: Readiness, metrics: Metrics, on_load_failure: Callable[[], None]
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        image_workers = ImageWorkers(settings.image_workers, settings.decode_workers, settings.max_waiting_uploads)
        metrics.ready.set_function(lambda: float(not readiness.reasons()))
        # A task, so that the server listens meanwhile: alive, and not ready.
        loading = asyncio.create_task(_load(settings, readiness, metrics, on_load_failure))
        try:
            yield State(settings=settings, metrics=metrics, readiness=readiness, image_workers=image_workers)
        finally:
            readiness.drain()
            loading.cancel()
            engine = (await asyncio.gather(loading, return_exceptions=True))[0]
            if isinstance(engine, Engine):
                await engine.close()
            image_workers.close()

    return lifespan


async def _load(
    settings: Settings, readiness: Readiness, metrics: Metrics, on_load_failure: Callable[[], None]
) -> Engine | None:
    """Load, check and warm up every model off the event loop, then become ready."""
    started = monotonic()
    try:
        runtime = await asyncio.to_thread(Runtime, settings.device, settings.precision)
        loaded = await asyncio.to_thread(load_models, settings.models_dir, runtime, settings.max_batch_rows)
        if settings.default_model is not None and settings.default_model not in loaded:
            cause = f"holds no model {settings.default_model}, which DIGITS_DEFAULT_MODEL names"
            raise CheckpointError(settings.models_dir, cause)
        engine = Engine(loaded, runtime, settings, metrics)
    except (CheckpointError, DeviceUnavailable) as error:
        log.error("cannot start: %s", error)
    except Exception:
        log.exception("cannot start")
    else:
        for model in loaded.values():
            labels = (model.name, model.manifest.family, model.digest, model.precision, model.runtime_id)
            metrics.model_info.labels(*labels).set(1)
        readiness.loaded(engine)
        names = ", ".join(loaded)
        log.info("ready: %s on %s after %.1f s", names, runtime.device, monotonic() - started)
        return engine
    readiness.failed()
    on_load_failure()
    return None
