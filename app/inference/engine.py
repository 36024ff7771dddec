"""The engine: the loaded models, the choice of a model for a request, and the queues of its jobs."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

from app.errors import CapabilityMissing, Draining, InvalidRequest, ModelNotFound, ServiceError
from app.inference.batching import Batcher, Job
from app.inference.limit import Limit
from app.inference.model import Model
from app.inference.workers import Workers
from app.metrics import Metrics

T = TypeVar("T")


class Pool(NamedTuple):
    """Workers, and the bound on the rows in flight that they compute."""

    workers: Workers
    limit: Limit


class Engine:
    """One set of loaded models. A reload replaces the engine; requests that began on the old one finish on it."""

    def __init__(
        self,
        models: Mapping[str, Model],
        pool: Pool,
        sequential_pool: Pool,
        metrics: Metrics,
        *,
        default_model: str | None,
        max_batch_rows: int,
    ) -> None:
        self.models = models
        # The default model first.
        self._candidates = sorted(models.values(), key=lambda model: (model.name != default_model, model.name))
        self._pool = pool
        self._sequential_pool = sequential_pool
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._batchers: dict[tuple[str, type[Job[Any]], Pool], Batcher] = {}
        self._closed: Callable[[], ServiceError] | None = None

    def select(self, name: str | None, prepare: Callable[[Model], T], role: str = "model") -> tuple[Model, T]:
        """The named model, or the first one that can do all that was requested, with the result of `prepare` for it.

        prepare: checks the request against a model and returns what the job needs; raises CapabilityMissing or
        InvalidRequest if the model cannot do it.
        role: what the request calls the model.
        Raises ModelNotFound for an unknown name, and the error of `prepare`, which then names a model that can.
        """
        if name is None:
            return self._find(prepare, role)
        if name not in self.models:
            raise ModelNotFound(f"no such model; the loaded models are {', '.join(self.models)}")
        try:
            return self.models[name], prepare(self.models[name])
        except InvalidRequest as error:
            try:
                other, _ = self._find(prepare, role)
            except InvalidRequest:
                raise error from None
            raise type(error)(f"{error.detail}; {role} {other.name} can do this") from None

    def _find(self, prepare: Callable[[Model], T], role: str) -> tuple[Model, T]:
        errors: list[InvalidRequest] = []
        for model in self._candidates:
            try:
                return model, prepare(model)
            except InvalidRequest as error:
                errors.append(error)
        # The error of the closest model: an error about a value helps more than one about the model.
        best = min(errors, key=_distance)
        if len({error.detail for error in errors}) == 1 or best.of_all_models:
            # All models give the same error, so that it is not about the model, or there is only one model; or the
            # error is of a search within `prepare`, as for a generator.
            raise best
        none_can = type(best)(f"no loaded {role} can do this; for example, {best.detail}")
        none_can.of_all_models = True
        raise none_can

    def pool(self, model: Model, job: Job[Any]) -> Pool:
        """The pool that computes a job. Sequential models have their own, so that their passes do not block others."""
        sequential = any(each.manifest.sequential for each in (model, *job.other_models))
        return self._sequential_pool if sequential else self._pool

    def admit(self, model: Model, job: Job[Any]) -> AbstractContextManager[None]:
        """Count the rows of a job as in flight. Raises Overloaded at once if there are too many."""
        return self.pool(model, job).limit.admit(job.rows)

    def run_piece(self, model: Model, job: Job[Any], deadline: float) -> asyncio.Future[bytes]:
        """As `run`, for a piece of an admitted stream: its rows count as in flight but are never refused."""
        limit = self.pool(model, job).limit
        future = self.run(model, job, deadline)
        limit.count(job.rows)
        future.add_done_callback(lambda _: limit.count(-job.rows))
        return future

    def run(self, model: Model, job: Job[Any], deadline: float) -> asyncio.Future[bytes]:
        """The body of the answer to a job. Raises and fails as `Batcher.submit`."""
        pool = self.pool(model, job)
        key = model.name, type(job), pool
        if (batcher := self._batchers.get(key)) is None:
            if self._closed is not None:
                raise self._closed()
            metrics = self._metrics.batch_metrics(model.name, type(job).operation)
            batcher = Batcher(type(job), model, pool.workers, metrics, self._max_batch_rows)
            self._batchers[key] = batcher
        return batcher.submit(job, deadline)

    async def close(self) -> None:
        """Refuse new jobs, fail those that wait, and wait for the batches that run."""
        self._closed = Draining
        await asyncio.gather(*(batcher.close() for batcher in self._batchers.values()))

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Refuse new jobs and fail all others with this error."""
        self._closed = error
        for batcher in self._batchers.values():
            batcher.fail(error)


def _distance(error: InvalidRequest) -> int:
    """How far a model is from what was requested."""
    return 0 if not isinstance(error, CapabilityMissing) else 1 if error.has_network else 2
