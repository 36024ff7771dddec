"""From a directory of models to the engine that serves, at the start and at each reload. Knows no HTTP."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from weakref import WeakSet

from app.checkpoints.store import CheckpointError, Model, load_models
from app.errors import ServiceError
from app.inference.admission import RowAdmission
from app.inference.engine import Engine
from app.inference.faults import DeviceLost
from app.inference.machine import DeviceUnavailable
from app.inference.runtime import Runtime
from app.inference.workers import Workers
from app.metrics import Metrics
from app.readiness import Readiness
from app.settings import Settings

log = logging.getLogger(__name__)

CHECK_EVERY_S = 1


class Loader:
    """Loads models off the event loop and puts the engine that serves them into place. Belongs to one event loop."""

    def __init__(self, settings: Settings, readiness: Readiness, metrics: Metrics) -> None:
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._admission = RowAdmission(settings.max_queued_rows)
        metrics.rows_in_flight.set_function(lambda: self._admission.rows)
        # A thread of its own: what loads computes, too, and must not wait for those who are served, nor they for it.
        self._loading = Workers(1, Runtime.prepare_thread)
        self._runtime: Runtime | None = None
        self._workers: Workers | None = None
        self._described: set[tuple[str, ...]] = set()  # the labels of what serves
        self._engines: WeakSet[Engine] = WeakSet()  # those that still have callers

    async def start(self) -> bool:
        """Load, check and warm up every model, then become ready. Whether it did; the log says why not."""
        started = monotonic()
        try:
            names = await self._load()
        except (CheckpointError, DeviceUnavailable) as error:
            log.error("cannot start: %s", error)
        except Exception:
            log.exception("cannot start")
        else:
            log.info("ready: %s after %.1f s", names, monotonic() - started)
            return True
        self._readiness.failed()
        return False

    async def reload(self) -> None:
        """Load beside what serves, check, swap at once; what is bad changes nothing but the log and the metrics."""
        started = monotonic()
        outcome = "refused"
        log.info("reloading %s", self._settings.models_dir)
        try:
            names = await self._load()
        except (CheckpointError, DeviceUnavailable) as error:
            log.error("cannot reload, the models from before serve on: %s", error)
        except Exception:
            log.exception("cannot reload, the models from before serve on")
        else:
            outcome = "swapped"
            log.info("reloaded: %s after %.1f s", names, monotonic() - started)
        self._metrics.reloads.labels(outcome).inc()

    async def watch(self) -> str:
        """Check once a second that workers get on; why one does not."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._workers is not None and (reason := self._workers.check(self._settings.worker_checks)):
                return reason

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Whoever waits for rows is told this error."""
        for engine in list(self._engines):
            engine.fail(error)

    async def close(self) -> None:
        """Refuse new rows, fail waiting ones, wait for forward passes under way, let the threads go."""
        await asyncio.gather(*(engine.close() for engine in list(self._engines)))
        self._loading.close()
        if self._workers is not None:
            self._workers.close()

    async def _load(self) -> str:
        """Put a new engine into place; what it serves. Raises CheckpointError and DeviceUnavailable."""
        settings = self._settings
        runtime = self._runtime
        if runtime is None:
            runtime = await self._loading.call(lambda: Runtime(settings.device, settings.precision))
        models = await self._loading.call(lambda: load_all(settings, runtime))
        if self._workers is None:
            self._workers = Workers(settings.workers or runtime.default_workers, Runtime.prepare_thread)
        self._runtime = runtime
        engine = Engine(models, runtime, self._workers, self._admission, settings, self._metrics)
        self._engines.add(engine)
        self._describe(models.values())
        self._readiness.loaded(engine)
        return f"{', '.join(models)} on {runtime.device}"

    def _describe(self, models: Iterable[Model]) -> None:
        """Say in the metrics what serves: first what is new, as a page may be rendered in between."""
        described: set[tuple[str, ...]] = {
            (model.name, model.manifest.family, model.digest, model.precision, model.runtime_id) for model in models
        }
        for labels in described:
            self._metrics.model_info.labels(*labels).set(1)
        for gone in self._described - described:
            self._metrics.model_info.remove(*gone)
        self._described = described


def load_all(settings: Settings, runtime: Runtime) -> dict[str, Model]:
    """Every model that the settings name, by name. Raises CheckpointError and DeviceUnavailable."""
    try:
        models = load_models(settings.models_dir, runtime, settings.max_batch_rows)
    except DeviceLost as error:  # no Exception: it would end this thread, and nobody would be told
        cause = str(error.__cause__).splitlines()[0]
        raise DeviceUnavailable(f"device {runtime.device} failed while models were loaded: {cause}") from error
    if settings.default_model is not None and settings.default_model not in models:
        cause = f"holds no model {settings.default_model}, which DIGITS_DEFAULT_MODEL names"
        raise CheckpointError(settings.models_dir, cause)
    return models
