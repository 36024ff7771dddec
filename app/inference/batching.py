"""Batches of rows from the jobs of many callers.

Rows accumulate while all workers are busy and are dispatched when one becomes free: no timer, no polling. Idle workers
share the waiting rows, so that a lone large job uses all of them. Every future settles exactly once, even if a batch
fails, the caller disconnects or the service drains.
"""

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, ClassVar, Generic, Self, TypeVar
from weakref import WeakMethod

from app.errors import DeadlineExceeded, Draining, ServiceError
from app.inference.model import Model
from app.inference.workers import Workers
from app.metrics import BatchMetrics
from app.trace import TRACE

log = logging.getLogger(__name__)

# Rows that a job adds to a batch before it is the next job's turn, so that a large job cannot starve a small one.
TURN_ROWS = 8
# Smallest share of a worker: the hand-over of fewer rows would cost more than it gains.
LEAST_SHARE_ROWS = 4
# Longest delay in noticing a missed deadline, in seconds.
SWEEP_S = 0.02

Part = TypeVar("Part")
T = TypeVar("T")


class Job(ABC, Generic[Part]):
    """A caller's rows and how to turn them into the bytes of an answer. All methods run on a worker.

    A batch holds chunks of several jobs of one class; a job may be split over several batches. Row i of a job must not
    depend on how the job was split or on its neighbours in the batch.
    """

    operation: ClassVar[str]  # for the metrics
    rows: int

    @property
    def other_models(self) -> tuple[Model, ...]:
        """Models that the job runs besides the one of its batch."""
        return ()

    @classmethod
    @abstractmethod
    def compute(cls, model: Model, chunks: "Sequence[Chunk[Self]]") -> Sequence[Part]:
        """The result of each chunk, in order. Raises ServiceError if the batch fails."""

    @abstractmethod
    def answer(self, parts: Sequence[Part]) -> bytes:
        """The body of the answer, from the results of all chunks in order."""


J = TypeVar("J", bound=Job[Any])


@dataclass(frozen=True, slots=True)
class Chunk(Generic[J]):
    """Rows `first` to `first + count - 1` of a job."""

    job: J
    first: int
    count: int

    @property
    def is_whole(self) -> bool:
        """Whether the chunk has all rows of its job."""
        return self.count == self.job.rows


class _Pending:
    """A job whose caller waits: the rows taken so far, and the results so far."""

    def __init__(self, job: Job[Any], deadline: float, future: asyncio.Future[bytes]) -> None:
        self.job = job
        self.deadline = deadline
        self.future = future
        self.queued_at = monotonic()
        self.trace = TRACE.get()
        self.taken = 0
        self.parts: dict[int, Any] = {}  # by first row
        self.running = 0  # chunks on a worker

    @property
    def waiting(self) -> int:
        return self.job.rows - self.taken

    @property
    def is_complete(self) -> bool:
        return not self.waiting and not self.running

    def fail(self, error: Exception) -> None:
        if isinstance(error, StopIteration):  # a future cannot hold it
            error = RuntimeError("a job raised StopIteration")
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self, now: float) -> bool:
        """Fail the job if its deadline has passed. Returns whether it is over, also because its caller left."""
        if self.deadline <= now:
            self.fail(DeadlineExceeded("the request was not computed in time; request fewer images or retry later"))
        return self.future.done()


Batch = list[tuple[_Pending, Chunk[Any]]]


class Batcher:
    """The queue of one job class of one model. It belongs to one running event loop."""

    def __init__(
        self, job_type: type[Job[Any]], model: Model, workers: Workers, metrics: BatchMetrics, max_batch_rows: int
    ) -> None:
        self._job_type = job_type
        self._model = model
        self._workers = workers
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._queue: deque[_Pending] = deque()  # jobs with waiting rows
        self._open: dict[_Pending, None] = {}  # jobs whose caller waits, in order of arrival
        self._queued_rows = 0
        self._worker_requested = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed: Callable[[], ServiceError] | None = None
        self._sweep: asyncio.TimerHandle | None = None

    def submit(self, job: Job[Any], deadline: float) -> asyncio.Future[bytes]:
        """Queue a job and return the future of its answer. If it is cancelled, waiting rows leave the queue.

        deadline: on the monotonic clock. The future fails with DeadlineExceeded once it has passed, with Draining when
        closed, and with the error of the batch. Raises the error of a queue that is closed already.
        """
        if self._closed is not None:
            raise self._closed()
        pending = _Pending(job, deadline, asyncio.get_running_loop().create_future())
        if not pending.expire(pending.queued_at):
            self._queue.append(pending)
            self._open[pending] = None
            pending.future.add_done_callback(lambda _: self._leave(pending))
            self._count(job.rows)
            self._sweep_by(deadline)
            self._request_worker()
        return pending.future

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Refuse new jobs, and fail all open ones, also those on a worker."""
        self._refuse(error, list(self._open))
        self._idle.set()  # a lost worker may never end its batch

    async def close(self) -> None:
        """Refuse new jobs, fail those that wait, and wait for the batches that run."""
        self._refuse(Draining, list(self._queue))
        await self._idle.wait()

    def _refuse(self, error: Callable[[], ServiceError], jobs: list[_Pending]) -> None:
        self._closed = error
        for pending in jobs:
            self._fail(pending, error())

    def _count(self, rows: int) -> None:
        self._queued_rows += rows
        self._metrics.queued(rows)

    def _report(self, pending: _Pending, step: str, started: float, ended: float, **rows: int) -> None:
        """Add a step to the trace of a job, if it has one."""
        if pending.trace is not None:
            model, operation = self._model.name, self._job_type.operation
            pending.trace.step(step, started, ended, model=model, operation=operation, **rows)

    def _dequeue(self, pending: _Pending) -> None:
        """Remove the waiting rows of a job, if there are any, from the queue."""
        if pending in self._open and pending.waiting:
            self._queue.remove(pending)
            self._count(-pending.waiting)
            pending.taken = pending.job.rows

    def _leave(self, pending: _Pending) -> None:
        self._dequeue(pending)
        del self._open[pending]

    def _fail(self, pending: _Pending, error: Exception) -> None:
        pending.fail(error)
        self._dequeue(pending)

    def _sweep_by(self, deadline: float) -> None:
        """Schedule a check for missed deadlines: one timer for the queue rather than one a job."""
        if deadline == math.inf or (self._sweep is not None and self._sweep.when() <= deadline):
            return
        if self._sweep is not None:
            self._sweep.cancel()
        # A weak reference: the timer must not keep a replaced model in memory after a reload.
        self._sweep = asyncio.get_running_loop().call_at(deadline, _call_if_alive, WeakMethod(self._sweep_late))

    def _sweep_late(self) -> None:
        self._sweep = None
        now = monotonic()
        for pending in [pending for pending in self._open if pending.expire(now)]:
            self._dequeue(pending)
        deadlines = [pending.deadline for pending in self._open if not pending.future.done()]
        if deadlines:
            self._sweep_by(max(min(deadlines), now + SWEEP_S))

    def _request_worker(self) -> None:
        if self._queue and not self._worker_requested:
            self._workers.when_free(self._start_batch)
            self._worker_requested = True

    def _start_batch(self) -> None:
        """Run the rows that have accumulated on the worker that is now held."""
        self._worker_requested = False
        batch = self._take()
        self._request_worker()  # another worker may take the rest at the same time
        if not batch:
            self._workers.release()
            return
        self._running += 1
        self._idle.clear()
        chunks = [chunk for _, chunk in batch]
        self._workers.run(partial(self._compute, chunks), partial(self._end_batch, batch, monotonic()))

    def _compute(self, chunks: list[Chunk[Any]]) -> list[Any]:
        """Runs on a worker. Returns the part of each chunk, or the answer if it is a whole job, or its exception."""
        outcomes = _compute_isolated(partial(self._job_type.compute, self._model), chunks)
        return [
            _outcome(partial(chunk.job.answer, [outcome]))
            if chunk.is_whole and not isinstance(outcome, Exception)
            else outcome
            for chunk, outcome in zip(chunks, outcomes, strict=True)
        ]

    def _end_batch(self, batch: Batch, started: float, outcomes: list[Any] | None, error: Exception | None) -> None:
        """Deliver the outcomes of a batch to its jobs."""
        delivered = outcomes if outcomes is not None else [error] * len(batch)
        # First remove failed jobs from the queue, then free the worker: it computes while the answers are written.
        for (pending, _), outcome in zip(batch, delivered, strict=True):
            if isinstance(outcome, Exception):
                self._fail(pending, outcome)
        self._workers.release()
        ended = monotonic()
        rows = sum(chunk.count for _, chunk in batch)
        self._metrics.computed(rows, ended - started)
        for pending, chunk in batch:
            self._report(pending, "batch", started, ended, rows=chunk.count, batch_rows=rows)
        for (pending, chunk), outcome in zip(batch, delivered, strict=True):
            if pending.future.done():
                continue
            if chunk.is_whole:
                self._answer(pending, outcome)
                continue
            pending.parts[chunk.first] = outcome
            pending.running -= 1
            if pending.is_complete:
                self._assemble(pending)
        self._end_run()

    def _answer(self, pending: _Pending, answer: bytes) -> None:
        pending.future.set_result(answer)
        self._metrics.answered(pending.job.rows)

    def _end_run(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    def _assemble(self, pending: _Pending) -> None:
        """Assemble the answer of a job that was split, on a worker."""
        parts = [pending.parts[first] for first in sorted(pending.parts)]
        self._running += 1

        def end(answer: Any, error: Exception | None) -> None:
            self._workers.release()
            self._end_run()
            outcome = answer if error is None else error
            if isinstance(outcome, Exception):
                pending.fail(outcome)
            elif not pending.future.done():
                self._answer(pending, outcome)

        def start() -> None:
            if pending.future.done():  # the caller has gone, or the deadline has passed
                self._workers.release()
                self._end_run()
            else:
                self._workers.run(partial(_outcome, partial(pending.job.answer, parts)), end)

        self._workers.when_free(start)

    def _take(self) -> Batch:
        """One worker's share of the waiting rows, in turns of `TURN_ROWS` rows a job."""
        now = monotonic()
        for pending in [pending for pending in self._queue if pending.expire(now)]:
            self._dequeue(pending)  # late, or cancelled in this turn of the event loop
        taken: dict[_Pending, int] = {}
        share = math.ceil(self._queued_rows / (1 + self._workers.idle))
        room = min(self._max_batch_rows, max(share, LEAST_SHARE_ROWS))
        while room and self._queue:
            pending = self._queue.popleft()
            turn = min(room, pending.waiting - taken.get(pending, 0), TURN_ROWS)
            taken[pending] = taken.get(pending, 0) + turn
            room -= turn
            if taken[pending] < pending.waiting:
                self._queue.append(pending)
        batch: Batch = []
        for pending, rows in taken.items():
            if pending.taken == 0:
                self._metrics.waited(now - pending.queued_at)
                self._report(pending, "queue", pending.queued_at, now, rows=pending.job.rows)
            batch.append((pending, Chunk(pending.job, pending.taken, rows)))
            pending.taken += rows
            pending.running += 1
        if taken:
            self._count(-sum(taken.values()))
        return batch


def _compute_isolated(
    compute: Callable[[Sequence[Chunk[Any]]], Sequence[Any]], chunks: Sequence[Chunk[Any]]
) -> list[Any]:
    """The part of each chunk, or its exception. If the batch fails, its chunks are computed one by one.

    A row has the same bits in every batch, so this does not change the answers to other callers.
    """
    try:
        return [*compute(chunks)]
    except Exception as error:
        rows = sum(chunk.count for chunk in chunks)
        if len(chunks) == 1:
            log.error("a batch of %d rows failed", rows, exc_info=error)
            return [error]
        log.warning("a batch of %d rows failed, computing its chunks one by one: %s", rows, error)
    return [part for chunk in chunks for part in _compute_isolated(compute, [chunk])]


def _outcome(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error


def _call_if_alive(method: "WeakMethod[Callable[[], None]]") -> None:
    if (call := method()) is not None:
        call()
