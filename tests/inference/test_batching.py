"""Batches of a gated network: the test decides when each forward pass ends."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from math import inf
from threading import Barrier, Event
from time import monotonic
from typing import Any

import pytest

from app.errors import DeadlineExceeded, Draining, InferenceFailed, Overloaded, WorkerLost
from app.inference.batching import TURN_ROWS, Batcher, Chunk, Job
from app.inference.workers import Workers
from app.metrics import Metrics
from tests.conftest import HANG_S

pytestmark = pytest.mark.anyio
LABELS = {"model": "m", "operation": "double"}


@dataclass
class Pass:
    """A forward pass that has started and ends once it is opened."""

    rows: list[int]
    opened: Event = field(default_factory=Event)


class Gate:
    """A network that doubles its rows. A pass with a row of `bad` fails."""

    def __init__(self, bad: Set[int] = frozenset()) -> None:
        self.bad = bad
        self.batches: list[list[int]] = []  # in the order in which the test received them
        self._loop = asyncio.get_running_loop()
        self._passes: asyncio.Queue[Pass] = asyncio.Queue()

    def double(self, chunks: Sequence[Sequence[int]]) -> list[list[int]]:
        one = Pass([row for chunk in chunks for row in chunk])
        self._loop.call_soon_threadsafe(self._passes.put_nowait, one)
        assert one.opened.wait(HANG_S)
        if not self.bad.isdisjoint(one.rows):
            raise InferenceFailed("a bad row")
        return [[2 * row for row in chunk] for chunk in chunks]

    async def started(self) -> Pass:
        one = await asyncio.wait_for(self._passes.get(), HANG_S)
        self.batches.append(one.rows)
        return one

    async def open(self, passes: int) -> None:
        for _ in range(passes):
            (await self.started()).opened.set()


class Doubling(Job[list[int]]):
    """Integers, one a row. `broken` is raised in place of an answer."""

    operation = "double"

    def __init__(self, values: Sequence[int], broken: Exception | None = None) -> None:
        self.values = values
        self.rows = len(values)
        self._broken = broken

    @classmethod
    def compute(cls, model: Any, chunks: "Sequence[Chunk[Doubling]]") -> list[list[int]]:
        gate: Gate = model
        return gate.double([chunk.job.values[chunk.first : chunk.first + chunk.count] for chunk in chunks])

    def answer(self, parts: Sequence[list[int]]) -> bytes:
        if self._broken is not None:
            raise self._broken
        return json.dumps([row for part in parts for row in part]).encode()


class Bench:
    """A batcher, its gate, and the metrics of its queue."""

    def __init__(self, workers: Workers, max_batch_rows: int = 64, bad: Set[int] = frozenset()) -> None:
        self.workers = workers
        self.gate = Gate(bad)
        self._metrics = Metrics()
        model: Any = self.gate
        batch_metrics = self._metrics.batch_metrics("m", "double")
        self.batcher = Batcher(Doubling, model, workers, batch_metrics, max_batch_rows)

    def ask(self, *rows: int, deadline: float = inf, broken: Exception | None = None) -> "asyncio.Task[list[int]]":
        async def answer() -> list[int]:
            doubled: list[int] = json.loads(await self.batcher.submit(Doubling(rows, broken), deadline))
            return doubled

        return asyncio.create_task(answer())

    async def busy(self) -> "tuple[asyncio.Task[list[int]], Pass]":
        """A job of the row 0 that occupies a worker, and its pass."""
        return self.ask(0), await self.gate.started()

    @property
    def queued_rows(self) -> float | None:
        return self._metrics.registry.get_sample_value("digits_queued_rows", LABELS)

    @property
    def computed_rows(self) -> float | None:
        return self._metrics.registry.get_sample_value("digits_batch_rows_sum", LABELS)


@pytest.fixture
def bench(pool: Callable[[int], Workers]) -> Callable[..., Bench]:
    """Makes benches."""
    return lambda workers=1, **options: Bench(pool(workers), **options)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def outcomes(*tasks: "asyncio.Task[list[int]]") -> list[Any]:
    """The answer of each task, or the class of its error."""
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_S)
    return [type(each) if isinstance(each, BaseException) else each for each in found]


# Order, size and fairness


async def test_a_lone_job_starts_at_once_and_is_answered_in_order(bench):
    b = bench()
    asked = b.ask(1, 2, 3)
    await b.gate.open(1)
    assert await asked == [2, 4, 6]
    assert b.gate.batches == [[1, 2, 3]]
    assert (b.queued_rows, b.computed_rows) == (0, 3)


async def test_rows_gather_while_the_workers_are_busy_and_go_together(bench):
    b = bench()
    first, computing = await b.busy()
    others = [b.ask(row) for row in range(1, 21)]
    await settle()
    assert b.queued_rows == 20
    computing.opened.set()
    await b.gate.open(1)
    assert await outcomes(first, *others) == [[2 * row] for row in range(21)]
    assert b.gate.batches == [[0], list(range(1, 21))]


async def test_a_job_above_the_largest_batch_is_split_and_assembled_in_order(bench):
    b = bench(workers=2, max_batch_rows=16)
    asked = b.ask(*range(50))
    first, second = await b.gate.started(), await b.gate.started()
    second.opened.set()
    await b.gate.open(2)
    first.opened.set()  # the chunk that started first ends last
    assert await asked == [2 * row for row in range(50)]
    assert sorted(map(len, b.gate.batches)) == [2, 16, 16, 16]


async def test_a_large_job_does_not_starve_a_small_one(bench):
    b = bench(max_batch_rows=2 * TURN_ROWS)
    large = b.ask(*range(20 * TURN_ROWS))
    await settle()
    small = b.ask(7)
    await settle()
    await b.gate.open(2)
    assert await asyncio.wait_for(small, HANG_S) == [14]
    assert not large.done()
    await b.gate.open(9)
    assert len(await large) == 20 * TURN_ROWS


@pytest.mark.parametrize(
    ("rows", "workers", "shares"), [(16, 2, [8, 8]), (16, 3, [5, 5, 6]), (6, 2, [2, 4]), (3, 2, [3]), (16, 1, [16])]
)
async def test_idle_workers_share_a_lone_job(bench, rows, workers, shares):
    b = bench(workers)
    asked = b.ask(*range(rows))
    await b.gate.open(len(shares))
    assert await asked == [2 * row for row in range(rows)]
    assert sorted(map(len, b.gate.batches)) == shares


async def test_no_share_is_kept_for_a_busy_worker(bench):
    b = bench(workers=2)
    first, computing = await b.busy()
    second = b.ask(*range(1, 17))
    await b.gate.open(1)
    assert len(await second) == 16
    computing.opened.set()
    await first
    assert b.gate.batches == [[0], list(range(1, 17))]


async def test_two_queues_take_turns_on_one_worker(bench):
    one = bench(max_batch_rows=1)
    other = Bench(one.workers, max_batch_rows=1)
    asked = [one.ask(1, 2, 3), other.ask(4, 5, 6)]
    for b in (one, other) * 3:
        await b.gate.open(1)
    assert await outcomes(*asked) == [[2, 4, 6], [8, 10, 12]]


# Callers that disconnect


async def test_rows_of_a_cancelled_caller_leave_the_queue_and_are_never_computed(bench):
    b = bench(max_batch_rows=8)
    first, computing = await b.busy()
    gone, split = b.ask(1, 2, 3), b.ask(*range(10, 30))
    await settle()
    gone.cancel()
    computing.opened.set()
    rest = await b.gate.started()
    split.cancel()  # eight of its rows are on the worker, the others wait
    await settle()
    assert b.queued_rows == 0
    rest.opened.set()
    stays = b.ask(4)
    await b.gate.open(1)
    assert await outcomes(first, gone, split, stays) == [[0], asyncio.CancelledError, asyncio.CancelledError, [8]]
    assert b.gate.batches == [[0], list(range(10, 18)), [4]]


async def test_a_caller_cancelled_in_the_turn_in_which_a_worker_becomes_free_is_not_computed(bench, monkeypatch):
    b = bench()
    first, computing = await b.busy()
    gone = b.ask(7, 8)
    await settle()
    release = b.workers.release
    monkeypatch.setattr(b.workers, "release", lambda: (gone.cancel(), release()))
    computing.opened.set()
    assert await outcomes(first, gone) == [[0], asyncio.CancelledError]
    stays = b.ask(9)
    await b.gate.open(1)
    assert await stays == [18]
    assert b.gate.batches == [[0], [9]]


# Deadlines


async def test_each_missed_deadline_is_reported_in_any_order_and_its_rows_are_never_computed(bench):
    b = bench()
    first, computing = await b.busy()
    late = [b.ask(1, deadline=monotonic() + seconds) for seconds in (0.05, 0.01, 0.03, 0.02)]
    patient = b.ask(2, deadline=monotonic() + 3600)
    assert await outcomes(*late) == [DeadlineExceeded] * 4
    computing.opened.set()
    await b.gate.open(1)
    assert await outcomes(first, patient) == [[0], [4]]
    assert b.gate.batches == [[0], [2]]


async def test_a_deadline_missed_on_a_worker_is_reported_before_the_batch_ends(bench):
    b = bench()
    late, patient = b.ask(1, deadline=monotonic() + 0.01), b.ask(2)
    assert await outcomes(late) == [DeadlineExceeded]
    await b.gate.open(1)
    assert await patient == [4]


async def test_a_job_whose_deadline_has_passed_is_refused_before_it_is_queued(bench):
    b = bench()
    assert await outcomes(b.ask(1, deadline=monotonic() - 1)) == [DeadlineExceeded]
    assert (b.queued_rows, b.computed_rows) == (0, 0)


async def test_late_rows_are_dropped_when_a_batch_is_taken_before_the_timer_fires(bench, monkeypatch):
    b = bench()
    first, computing = await b.busy()
    late, patient = b.ask(1, deadline=monotonic() + 3600), b.ask(2)
    await settle()
    later = monotonic() + 7200
    monkeypatch.setattr("app.inference.batching.monotonic", lambda: later)
    computing.opened.set()
    await b.gate.open(1)
    assert await outcomes(first, late, patient) == [[0], DeadlineExceeded, [4]]
    assert b.gate.batches == [[0], [2]]


# Failures


@pytest.mark.parametrize("bad", [{10}, {13, 15}, {10, 11, 12, 13, 14, 15}], ids=["one", "two", "all"])
async def test_a_failing_chunk_fails_its_caller_and_the_others_get_the_same_answers(bench, bad):
    b = bench(bad=bad)
    first, computing = await b.busy()
    asked = [b.ask(row, row + 100) for row in range(10, 16)]
    await settle()
    computing.opened.set()
    await b.gate.open(1 + 6)  # the batch, then its chunks one by one
    expected = [InferenceFailed if row in bad else [2 * row, 2 * row + 200] for row in range(10, 16)]
    assert await outcomes(first, *asked) == [[0], *expected]


async def test_a_failed_chunk_takes_the_waiting_rest_of_its_job_out_of_the_queue(bench):
    b = bench(max_batch_rows=8, bad={3})
    bad = b.ask(*range(20))
    await b.gate.open(1)
    assert await outcomes(bad) == [InferenceFailed]
    assert b.queued_rows == 0
    good = b.ask(*range(20, 40))
    await b.gate.open(3)
    assert len(await good) == 20


@pytest.mark.parametrize("rows", [2, 20], ids=["whole", "split"])
@pytest.mark.parametrize("error", [ValueError("in the answer"), Overloaded("in the answer")], ids=repr)
async def test_an_exception_in_an_answer_reaches_only_its_caller(bench, rows, error):
    b = bench(max_batch_rows=8)
    first, computing = await b.busy()
    broken, good = b.ask(*range(rows), broken=error), b.ask(*range(rows))
    await settle()
    computing.opened.set()
    await b.gate.open(-(-2 * rows // 8))
    assert await outcomes(first, broken, good) == [[0], type(error), [2 * row for row in range(rows)]]


async def test_an_exception_that_a_future_cannot_hold_still_settles_it_and_frees_the_worker(bench):
    b = bench()
    broken = b.ask(1, broken=StopIteration())
    await b.gate.open(1)
    (error,) = await outcomes(broken)
    assert issubclass(error, Exception)
    assert await b.workers.submit(lambda: 7) == 7


async def test_a_job_that_loses_a_chunk_is_an_error_of_every_caller_in_the_batch(bench, monkeypatch):
    b = bench()
    monkeypatch.setattr(b.gate, "double", lambda chunks: [[] for _ in chunks][1:])
    assert await outcomes(b.ask(1), b.ask(2)) == [ValueError] * 2
    assert await b.workers.submit(lambda: 7) == 7


# The end


async def test_closing_refuses_new_jobs_fails_waiting_ones_and_finishes_those_on_a_worker(bench):
    b = bench(workers=2, max_batch_rows=8)
    split = b.ask(*range(16))
    computing = [await b.gate.started(), await b.gate.started()]
    waiting = b.ask(2)
    await settle()
    closing = asyncio.create_task(b.batcher.close())
    await settle()
    assert await outcomes(waiting, b.ask(3)) == [Draining] * 2
    assert not closing.done()
    for one in computing:
        one.opened.set()
    await asyncio.wait_for(closing, HANG_S)
    b.workers.close()
    assert await outcomes(split) == [[2 * row for row in range(16)]]


async def test_when_the_workers_are_lost_every_job_fails_and_new_ones_are_refused(bench):
    b = bench(max_batch_rows=2)
    computing, waiting = b.ask(1, 2), b.ask(3)
    one = await b.gate.started()
    b.batcher.fail(lambda: WorkerLost("the worker hangs"))
    assert await outcomes(computing, waiting, b.ask(4)) == [WorkerLost] * 3
    assert b.queued_rows == 0
    await asyncio.wait_for(b.batcher.close(), HANG_S)
    one.opened.set()
    assert b.gate.batches == [[1, 2]]


@pytest.mark.parametrize("seed", range(12))
async def test_every_job_settles_once_in_any_order_of_arrivals_cancellations_deadlines_and_failures(bench, seed):
    chosen = random.Random(seed)
    bad = set(chosen.sample(range(1000), 30))
    workers, max_batch_rows = chosen.randint(1, 3), chosen.choice([1, 5, 16])
    b = bench(workers, max_batch_rows=max_batch_rows, bad=bad)
    running: list[Pass] = []
    loop_errors: list[dict[str, Any]] = []  # errors of callbacks, such as a future that is set twice
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))

    last = asyncio.Event()

    async def collect() -> None:
        while True:
            running.append(await b.gate.started())
            if last.is_set():
                running.pop().opened.set()

    collecting = asyncio.create_task(collect())
    jobs: list[tuple[list[int], bool, asyncio.Task[list[int]]]] = []
    for _ in range(150):
        action = chosen.random()
        if action < 0.45:
            rows = chosen.sample(range(1000), chosen.randint(1, 12))
            fails = chosen.random() < 0.1
            deadline = monotonic() + chosen.choice([0.001, 0.01, inf, inf, inf, inf])
            broken = ValueError("in the answer") if fails else None
            jobs.append((rows, fails, b.ask(*rows, deadline=deadline, broken=broken)))
        elif action < 0.55 and jobs:
            chosen.choice(jobs)[2].cancel()
        elif running:
            running.pop(chosen.randrange(len(running))).opened.set()
        await settle()
    last.set()
    for one in running:
        one.opened.set()
    await asyncio.wait_for(asyncio.gather(*(task for *_, task in jobs), return_exceptions=True), HANG_S)
    await asyncio.wait_for(b.batcher.close(), HANG_S)
    collecting.cancel()
    for rows, fails, task in jobs:
        if task.cancelled():
            continue
        error = task.exception()
        if error is not None:
            assert type(error) in {DeadlineExceeded, InferenceFailed if bad.intersection(rows) else ValueError}
        else:
            assert not fails
            assert task.result() == [2 * row for row in rows]
    assert max(map(len, b.gate.batches)) <= max_batch_rows
    assert b.queued_rows == 0
    all_free = Barrier(workers)
    await asyncio.gather(*(b.workers.submit(lambda: all_free.wait(HANG_S)) for _ in range(workers)))
    assert loop_errors == []
