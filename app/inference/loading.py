"""Load the models into an engine, at the start and at each reload."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from weakref import WeakSet

from app.checkpoints.store import CheckpointError
from app.errors import ServiceError
from app.inference.engine import Engine, Pool
from app.inference.limit import Limit
from app.inference.machine import DeviceUnavailable, return_free_memory
from app.inference.model import Model, load_models
from app.inference.readiness import Readiness
from app.inference.runtime import DeviceLost, Runtime
from app.inference.workers import Workers
from app.metrics import Metrics
from app.settings import Settings

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1
# Rows of a small request.
SMALL_ROWS = 16
# Default workers per process, if there are several processes: as many as a request of the default size can use.
MAX_DEFAULT_WORKERS = 8
# Factor on the time after which a pass of a sequential model counts as hung.
SEQUENTIAL_PATIENCE = 10


class Loader:
    """Loads models off the event loop and installs the engine that serves them. It belongs to one event loop."""

    def __init__(self, settings: Settings, readiness: Readiness, metrics: Metrics) -> None:
        self._settings = settings
        self._scoreboard = readiness.scoreboard
        self._readiness = readiness
        self._metrics = metrics
        # A thread of its own, so that loading and serving do not wait for each other.
        self._loading = Workers(1, Runtime.prepare_thread)
        self._runtime: Runtime | None = None
        self._pools: tuple[Pool, Pool] | None = None  # for most models, for sequential ones
        self._engines: WeakSet[Engine] = WeakSet()  # those that requests still use

    async def start(self) -> bool:
        """Load, check and warm up all models. Returns whether the service is ready; the log has the cause if not."""
        return await self._try("start")

    async def reload(self) -> None:
        """Load the models again and swap the engine at once. If a checkpoint is bad, the current engine stays."""
        log.info("reloading %s", self._settings.models_dir)
        swapped = await self._try("reload")
        if self._scoreboard.is_first:
            self._scoreboard.reload_refused = not swapped
            self._metrics.reloads.labels("swapped" if swapped else "refused").inc()

    async def watch(self) -> str:
        """Check the workers once a second until one is lost, and return the cause."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            for pool, patience in zip(self._pools or (), (1, SEQUENTIAL_PATIENCE), strict=False):
                if reason := pool.workers.check(patience * self._settings.worker_checks):
                    return reason

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Fail all jobs with this error."""
        for engine in list(self._engines):
            engine.fail(error)

    async def close(self) -> None:
        """Refuse new jobs, fail those that wait, wait for the batches that run, and end the threads."""
        await asyncio.gather(*(engine.close() for engine in list(self._engines)))
        self._loading.close()
        for pool in self._pools or ():
            pool.workers.close()

    async def _try(self, action: str) -> bool:
        started = monotonic()
        try:
            loaded = await self._load()
        except (CheckpointError, DeviceUnavailable) as error:
            log.error("cannot %s: %s", action, error)
        except Exception:
            log.exception("cannot %s", action)
        else:
            log.info("ready: %s after %.1f s", loaded, monotonic() - started)
            return True
        return False

    async def _load(self) -> str:
        settings, board = self._settings, self._scoreboard
        runtime = self._runtime
        if runtime is None:
            runtime = await self._loading.submit(lambda: Runtime(settings.device, settings.precision))
        reload, models = await self._load_models(runtime)
        loaded = id_of_models(models.values())
        if not self._engines and board.served_by_others - {loaded}:
            # This process replaces another one, and the files have changed: make all processes load them.
            await board.request_reload()
            reload, models = await self._load_models(runtime)
            loaded = id_of_models(models.values())
        if not await board.agree(reload, loaded):
            raise CheckpointError(settings.models_dir, "was not loaded by all processes, or not with the same content")
        if self._pools is None:
            self._pools = self._make_pools(runtime)
        self._runtime = runtime
        engine = Engine(
            models,
            *self._pools,
            self._metrics,
            default_model=settings.default_model,
            max_batch_rows=settings.max_batch_rows,
        )
        self._engines.add(engine)
        board.serve(loaded)
        self._metrics.service.models = [
            (made_by.model, model.manifest.family, made_by.digest, made_by.precision, made_by.runtime)
            for model in models.values()
            for made_by in [model.provenance]
        ]
        self._readiness.loaded(engine)
        return_free_memory()
        return f"{', '.join(models)} on {runtime.device}"

    def _make_pools(self, runtime: Runtime) -> tuple[Pool, Pool]:
        settings, board, cores = self._settings, self._scoreboard, runtime.default_workers
        size = settings.workers or (cores if board.processes == 1 else min(cores, MAX_DEFAULT_WORKERS))
        limits = settings.limits
        # A process may always use one worker, and all together no more than there are cores.
        most_busy = min(size * board.processes, max(cores, board.processes))
        self._metrics.service.limits |= {"busy": most_busy, "busy_sequential": most_busy}
        return (
            Pool(
                Workers(size, runtime.prepare_thread, board.counter("busy"), cores),
                Limit(limits["rows"], board.counter("rows"), small=SMALL_ROWS, what="rows"),
            ),
            Pool(
                Workers(size, runtime.prepare_background_thread, board.counter("busy_sequential"), cores),
                Limit(limits["sequential_rows"], board.counter("sequential_rows"), small=SMALL_ROWS, what="rows"),
            ),
        )

    async def _load_models(self, runtime: Runtime) -> tuple[int, dict[str, Model]]:
        """The number of the reload that was requested last, and the models loaded after it. Raises CheckpointError."""
        settings, reload = self._settings, self._scoreboard.reload
        # At the start, each process uses its share of the cores. A reload leaves them to the requests.
        threads = 1 if self._engines else max(1, runtime.default_workers // self._scoreboard.processes)
        try:
            return reload, await self._loading.submit(lambda: _load_all(settings, runtime, threads))
        except Exception:
            await self._scoreboard.agree(reload, 0)
            raise


def id_of_models(models: Iterable[Model]) -> int:
    """The id of a set of models: equal in processes that have loaded the same checkpoints with the same precision."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(f"{model.manifest.model_dump_json()}{model.card}{model.provenance}\n".encode())
        pictures = {name: picture.digest for name, picture in model.pictures.items()}
        digest.update(f"{pictures}{model.history}\n".encode())
    return int.from_bytes(digest.digest()[:7]) + 1


def _load_all(settings: Settings, runtime: Runtime, threads: int) -> dict[str, Model]:
    try:
        models = load_models(settings.models_dir, runtime, settings.max_batch_rows, settings.models, threads)
    except DeviceLost as error:  # a BaseException, which would end this thread without a message
        cause = str(error.__cause__).splitlines()[0]
        raise DeviceUnavailable(f"device {runtime.device} failed while loading models: {cause}") from error
    if settings.default_model is not None and settings.default_model not in models:
        cause = f"holds no model {settings.default_model}, which DIGITS_DEFAULT_MODEL names"
        raise CheckpointError(settings.models_dir, cause)
    return models
