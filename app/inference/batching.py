"""Row queue to batches. Knows nothing of HTTP or of models.

Rows gather while the workers are busy and go when one is free: no timer, no polling. Where several are
free they share the rows, so that a lone large request has all of them. Whatever happens to a forward pass or
to a caller, every future settles exactly once.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Generic, Protocol, Self, TypeVar

from app.errors import DeadlineExceeded, Draining, InferenceFailed, Overloaded

log = logging.getLogger(__name__)

# A job gives at most so many rows before the next one has its turn: a large one cannot starve a small one.
TURN_ROWS = 8
# Idle workers share what waits, but no share is smaller: handing over costs more than it gains.
LEAST_SHARE_ROWS = 4


class Rows(Protocol):
    """Rows along the first axis: a tensor, an array, a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Self: ...


R = TypeVar("R", bound=Rows)
Result = TypeVar("Result")
T = TypeVar("T")


class Workers(Protocol):
    """Where batches are computed: entering waits for a free worker, in order of asking."""

    @property
    def idle(self) -> int:
        """Workers that nobody has entered for."""
        ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exception: object) -> None: ...

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` on the worker that was entered for, off the event loop."""
        ...


class Observer(Protocol):
    """What wants to know how the queue does."""

    def queued(self, rows: int) -> None:
        """So many rows wait now."""

    def waited(self, seconds: float) -> None:
        """A caller's first rows waited so long for a worker."""

    def computed(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""


class _Job(Generic[R, Result]):
    """One caller's rows: how far they were taken, and what came back for each chunk of them."""

    def __init__(self, rows: R, future: asyncio.Future[list[Result]]) -> None:
        self.rows = rows
        self.future = future
        self.asked_at = monotonic()
        self.taken = 0
        self.chunks = 0
        self.results: dict[int, Result] = {}

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def deliver(self, chunk: int, result: Result) -> None:
        self.results[chunk] = result
        complete = not self.waiting and len(self.results) == self.chunks
        if complete and not self.future.done():
            self.future.set_result([self.results[number] for number in range(self.chunks)])

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[R, Result]):
    """The queue of one network.

    `compute` takes the chunks of a batch, at most `max_batch_rows` rows together, and gives one result
    a chunk, in order. It runs on a worker. It must belong to one running event loop.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[R]], Sequence[Result]],
        workers: Workers,
        observer: Observer,
        *,
        max_batch_rows: int,
        max_queued_rows: int,
    ) -> None:
        self._compute = compute
        self._workers = workers
        self._observer = observer
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._jobs: deque[_Job[R, Result]] = deque()
        self._queued_rows = 0
        self._asking: asyncio.Task[None] | None = None  # waits for a worker on behalf of the queue
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, rows: R, *, timeout_s: float | None = None) -> list[Result]:
        """Queue `rows`, at least one; the results of their chunks, in order.

        Raises Overloaded or Draining at once, without waiting; DeadlineExceeded after `timeout_s`;
        InferenceFailed or whatever ServiceError `compute` raised. A caller that is cancelled or late
        takes the rows that still wait out of the queue: they are never computed.
        """
        self._admit(len(rows))
        job: _Job[R, Result] = _Job(rows, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._count(len(rows))
        self._ask_for_worker()
        try:
            async with asyncio.timeout(timeout_s):
                return await job.future
        except TimeoutError:
            raise DeadlineExceeded("the rows were not computed in time; ask for fewer or later") from None
        finally:
            self._forget(job)

    async def close(self) -> None:
        """Refuse what comes from now on, fail what still waits, and wait for batches under way."""
        self._closed = True
        for job in list(self._jobs):
            job.fail(Draining("the service is shutting down"))
            self._forget(job)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _admit(self, rows: int) -> None:
        if rows < 1:
            raise ValueError("a job needs at least one row")
        if self._closed:
            raise Draining("the service is shutting down")
        if self._queued_rows + rows > self._max_queued_rows:
            raise Overloaded("too many rows are waiting; try again later")

    def _count(self, rows: int) -> None:
        self._queued_rows += rows
        self._observer.queued(self._queued_rows)

    def _forget(self, job: _Job[R, Result]) -> None:
        """Take the job's rows that nobody took yet out of the queue; nothing where there are none."""
        if job.waiting:
            self._jobs.remove(job)
            self._count(-job.waiting)
            job.taken = len(job.rows)

    def _ask_for_worker(self) -> None:
        if self._jobs and self._asking is None:
            self._asking = asyncio.create_task(self._serve_batch())
            self._tasks.add(self._asking)
            self._asking.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task is self._asking:
            # It ended before it had a worker: nobody else would ever ask for those who wait.
            self._asking = None
            for job in list(self._jobs):
                job.fail(InferenceFailed("no worker could be had"))
                self._forget(job)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a batch task ended unexpectedly", exc_info=error)

    async def _serve_batch(self) -> None:
        """Wait for a worker, then take what has gathered by now and compute it."""
        async with self._workers:
            batch = self._take()
            self._asking = None
            self._ask_for_worker()  # the rest may go to another worker at the same time
            if not batch:
                return
            started = monotonic()
            try:
                results = await self._workers.run(lambda: self._compute([rows for _, _, rows in batch]))
                if len(results) != len(batch):
                    raise InferenceFailed("the network gave a wrong number of rows")
            except BaseException as error:
                # These callers fail, others do not notice. A cancelled task, too, owes them an answer.
                log.error("a batch of %d rows failed", sum(len(rows) for _, _, rows in batch), exc_info=error)
                cause = error if isinstance(error, Exception) else Draining("the service is shutting down")
                for job, _, _ in batch:
                    job.fail(cause)
                    self._forget(job)
                if not isinstance(error, Exception):
                    raise
            else:
                self._observer.computed(sum(len(rows) for _, _, rows in batch), monotonic() - started)
                for (job, chunk, _), result in zip(batch, results, strict=True):
                    job.deliver(chunk, result)

    def _take(self) -> list[tuple[_Job[R, Result], int, R]]:
        """One worker's share of what waits, in turns of `TURN_ROWS`: (job, number of its chunk, rows)."""
        for job in [job for job in self._jobs if job.future.done()]:
            self._forget(job)  # its caller has gone in this very turn of the loop, and had no chance to say so
        taken: dict[_Job[R, Result], int] = {}
        share = math.ceil(self._queued_rows / (1 + self._workers.idle))
        room = min(self._max_batch_rows, max(share, LEAST_SHARE_ROWS))
        while room and self._jobs:
            job = self._jobs.popleft()
            turn = min(room, job.waiting - taken.get(job, 0), TURN_ROWS)
            taken[job] = taken.get(job, 0) + turn
            room -= turn
            if taken[job] < job.waiting:
                self._jobs.append(job)
        batch = []
        for job, rows in taken.items():
            if job.taken == 0:
                self._observer.waited(monotonic() - job.asked_at)
            batch.append((job, job.chunks, job.rows[job.taken : job.taken + rows]))
            job.taken += rows
            job.chunks += 1
        self._count(-sum(taken.values()))
        return batch
