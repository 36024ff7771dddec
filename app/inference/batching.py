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
from functools import partial
from time import monotonic
from typing import Generic, Protocol, Self, TypeVar
from weakref import WeakMethod

from app.errors import DeadlineExceeded, Draining, InferenceFailed, ServiceError

log = logging.getLogger(__name__)

# A job gives at most so many rows before the next one has its turn: a large one cannot starve a small one.
TURN_ROWS = 8
# Idle workers share what waits, but no share is smaller: handing over costs more than it gains.
LEAST_SHARE_ROWS = 4
# Who waits is told of a missed deadline so much later at most.
SWEEP_S = 0.02


class Rows(Protocol):
    """Rows along the first axis: a tensor, an array, a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Self: ...


R = TypeVar("R", bound=Rows)
Result = TypeVar("Result")
T = TypeVar("T")


class Workers(Protocol):
    """Where batches are computed (`inference.workers.Workers`)."""

    @property
    def idle(self) -> int:
        """Workers that nobody holds."""
        ...

    def when_free(self, start: Callable[[], None]) -> None:
        """Call `start` from the event loop when a worker is held for it, in order of asking."""
        ...

    def run(self, function: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Call `function` on the worker held, then `done` on the event loop, which releases it."""
        ...

    def release(self) -> None:
        """Give the worker held to somebody else."""
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

    def __init__(self, rows: R, deadline: float, future: asyncio.Future[list[Result]]) -> None:
        self.rows = rows
        self.deadline = deadline
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

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def is_over(self, now: float) -> bool:
        """Whether nobody wants the rows any more; who is late is told."""
        if self.deadline <= now:
            self.fail(DeadlineExceeded("the rows were not computed in time; ask for fewer or later"))
        return self.future.done()


# A job, the number of its chunk, and the chunk.
Share = list[tuple[_Job[R, Result], int, R]]


class Batcher(Generic[R, Result]):
    """The queue of one network. Who may wait in it is decided before (`inference.admission`).

    `compute` takes the chunks of a batch, at most `max_batch_rows` rows together, and gives for each chunk, in
    order, its result or the error that is its own. It runs on a worker. It must belong to one running event loop.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[R]], Sequence[Result | ServiceError]],
        workers: Workers,
        observer: Observer,
        *,
        max_batch_rows: int,
    ) -> None:
        self._compute = compute
        self._workers = workers
        self._observer = observer
        self._max_batch_rows = max_batch_rows
        self._jobs: deque[_Job[R, Result]] = deque()  # with rows that wait
        self._open: dict[_Job[R, Result], None] = {}  # whose caller waits, in order
        self._queued_rows = 0
        self._is_asking = False
        self._under_way = 0
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._closed: Callable[[], ServiceError] | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def submit(self, rows: R, *, deadline: float = math.inf) -> list[Result]:
        """Queue `rows`, at least one; the results of their chunks, in order.

        deadline: of the monotonic clock. Raises DeadlineExceeded once it has passed, Draining at once when closed,
        and whatever ServiceError `compute` gave. A caller that is cancelled or late takes the rows that still wait
        out of the queue: they are never computed.
        """
        if not len(rows):
            raise ValueError("a job needs at least one row")
        if self._closed is not None:
            raise self._closed()
        job: _Job[R, Result] = _Job(rows, deadline, asyncio.get_running_loop().create_future())
        if not job.is_over(job.asked_at):
            self._jobs.append(job)
            self._open[job] = None
            self._count(len(rows))
            self._sweep_by(deadline)
        try:
            self._ask_for_worker()
            return await job.future
        finally:
            self._forget(job)
            self._open.pop(job, None)

    def fail(self, error: Callable[[], ServiceError]) -> None:
        """Refuse what comes from now on, and fail everybody who waits, for rows under way too."""
        self._closed = error
        for job in list(self._open):
            self._fail(job, error())
        self._at_rest.set()  # nobody waits for what is under way, and it may never end

    async def close(self) -> None:
        """Refuse what comes from now on, fail what still waits, and wait for batches under way."""
        self._closed = _draining
        for job in list(self._jobs):
            self._fail(job, _draining())
        await self._at_rest.wait()

    def _count(self, rows: int) -> None:
        self._queued_rows += rows
        self._observer.queued(self._queued_rows)

    def _forget(self, job: _Job[R, Result]) -> None:
        """Take the job's rows that nobody took yet out of the queue; nothing where there are none."""
        if job in self._open and job.waiting:
            self._jobs.remove(job)
            self._count(-job.waiting)
            job.taken = len(job.rows)

    def _sweep_by(self, deadline: float) -> None:
        """See to it that whoever is late at `deadline` is told: one timer for the whole queue, not one a job."""
        if deadline == math.inf or (self._sweep is not None and self._sweep.when() <= deadline):
            return
        if self._sweep is not None:
            self._sweep.cancel()
        # The loop must not be what keeps this queue, and its network, once nobody else does: after a reload.
        self._sweep = asyncio.get_running_loop().call_at(deadline, _if_there, WeakMethod(self._sweep_late))

    def _sweep_late(self) -> None:
        self._sweep = None
        now = monotonic()
        for job in [job for job in self._open if job.is_over(now)]:
            self._forget(job)
        waiting = [job.deadline for job in self._open if not job.future.done()]
        if waiting:
            self._sweep_by(max(min(waiting), now + SWEEP_S))

    def _ask_for_worker(self) -> None:
        if self._jobs and not self._is_asking:
            self._workers.when_free(self._start_batch)
            self._is_asking = True

    def _start_batch(self) -> None:
        """A worker is held: take what has gathered by now and let it be computed."""
        self._is_asking = False
        batch = self._take()
        self._ask_for_worker()  # the rest may go to another worker at the same time
        if not batch:
            self._workers.release()
            return
        self._under_way += 1
        self._at_rest.clear()
        chunks = [rows for _, _, rows in batch]
        self._workers.run(lambda: self._compute(chunks), partial(self._end_batch, batch, monotonic()))

    def _end_batch(
        self,
        batch: Share[R, Result],
        started: float,
        results: Sequence[Result | ServiceError] | None,
        error: Exception | None,
    ) -> None:
        """Tell each caller of a batch what became of its rows."""
        count = sum(len(rows) for _, _, rows in batch)
        if error is None and len(results or ()) != len(batch):
            error = InferenceFailed("the network gave a wrong number of rows")
        if error is not None:
            log.error("a batch of %d rows failed", count, exc_info=error)
        outcomes: Sequence[Result | Exception] = [error] * len(batch) if error is not None else results or ()
        # First the rest of what failed leaves the queue, then the worker goes on: the answers are written meanwhile.
        for (job, _, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._fail(job, outcome)
        self._workers.release()
        if error is None:
            self._observer.computed(count, monotonic() - started)
        for (job, chunk, _), outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                job.deliver(chunk, outcome)
        self._under_way -= 1
        if not self._under_way:
            self._at_rest.set()

    def _fail(self, job: _Job[R, Result], error: Exception) -> None:
        job.fail(error)
        self._forget(job)

    def _take(self) -> Share[R, Result]:
        """One worker's share of what waits, in turns of `TURN_ROWS`."""
        now = monotonic()
        for job in [job for job in self._jobs if job.is_over(now)]:
            self._forget(job)  # late, or gone in this very turn of the loop, with no chance to say so
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
                self._observer.waited(now - job.asked_at)
            batch.append((job, job.chunks, job.rows[job.taken : job.taken + rows]))
            job.taken += rows
            job.chunks += 1
        if taken:
            self._count(-sum(taken.values()))
        return batch


def _if_there(method: "WeakMethod[Callable[[], None]]") -> None:
    if (call := method()) is not None:
        call()


def _draining() -> Draining:
    return Draining("the service is shutting down")
