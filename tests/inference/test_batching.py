"""The batcher with a gated network: the test decides when a forward pass ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from threading import Event
from time import monotonic

import pytest

from app.errors import DeadlineExceeded, Draining, InferenceFailed, ServiceError, WorkerLost
from app.inference.batching import TURN_ROWS, Batcher
from app.inference.workers import Workers


class Gate:
    """A network that doubles its rows, one batch for each `open()`, and remembers the batches it saw."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failures: dict[int, Exception] = {}
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._passes: list[Event] = []

    def compute(self, chunks: Sequence[list[int]]) -> list[list[int]]:
        number = len(self.batches)
        self.batches.append([row for chunk in chunks for row in chunk])
        opened = Event()
        self._passes.append(opened)
        self._loop.call_soon_threadsafe(self.started.put_nowait, number)
        assert opened.wait(10)
        if number in self.failures:
            raise self.failures[number]
        return [[2 * row for row in chunk] for chunk in chunks]

    async def open(self, passes: int = 1) -> None:
        """Wait for the next passes to start, and let each end."""
        for _ in range(passes):
            number = await asyncio.wait_for(self.started.get(), 10)
            self._passes[number].set()


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.batches: list[int] = []
        self.waits = 0

    def queued(self, rows: int) -> None:
        self.queue.append(rows)

    def waited(self, seconds: float) -> None:
        assert seconds >= 0
        self.waits += 1

    def computed(self, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.batches.append(rows)


Compute = Callable[[Sequence[list[int]]], Sequence[list[int] | ServiceError]]


class Bench:
    """A batcher, its gate and its observer."""

    def __init__(self, workers: Workers, max_batch_rows: int, compute: Compute | None) -> None:
        self.gate = Gate()
        self.observer = Recorder()
        self.batcher: Batcher[list[int], list[int]] = Batcher(
            compute or self.gate.compute,
            workers,
            self.observer,
            max_batch_rows=max_batch_rows,
        )

    def ask(self, *rows: int, timeout_s: float = 3600) -> "asyncio.Task[list[int]]":
        async def whole() -> list[int]:
            parts = await self.batcher.submit(list(rows), deadline=monotonic() + timeout_s)
            return [row for part in parts for row in part]

        return asyncio.create_task(whole())


@asynccontextmanager
async def bench(*, workers: int = 1, max_batch_rows: int = 64, compute: Compute | None = None) -> AsyncIterator[Bench]:
    pool = Workers(workers)
    made = Bench(pool, max_batch_rows, compute)
    try:
        yield made
    finally:
        pool.close()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_rows_come_back_to_their_caller_in_order():
    async def scenario() -> None:
        async with bench() as b:
            asked = b.ask(1, 2, 3)
            await b.gate.open()
            assert await asked == [2, 4, 6]
            assert b.observer.batches == [3]
            assert b.observer.waits == 1

    asyncio.run(scenario())


def test_rows_gather_while_the_worker_is_busy_and_go_together():
    async def scenario() -> None:
        async with bench() as b:
            first = b.ask(1)
            await settle()
            others = [b.ask(10 + number) for number in range(20)]
            await settle()
            await b.gate.open(2)
            assert await first == [2]
            assert await asyncio.gather(*others) == [[2 * (10 + number)] for number in range(20)]
            assert [len(batch) for batch in b.gate.batches] == [1, 20]

    asyncio.run(scenario())


def test_a_lone_caller_does_not_wait_for_company():
    async def scenario() -> None:
        async with bench() as b:
            asked = b.ask(5)
            assert await asyncio.wait_for(b.gate.started.get(), 10) == 0
            b.gate._passes[0].set()
            assert await asked == [10]

    asyncio.run(scenario())


def test_a_request_over_the_batch_cap_is_split_and_put_together_again():
    async def scenario() -> None:
        async with bench(max_batch_rows=16) as b:
            asked = b.ask(*range(50))
            await b.gate.open(4)
            assert await asked == [2 * row for row in range(50)]
            assert [len(batch) for batch in b.gate.batches] == [16, 16, 16, 2]

    asyncio.run(scenario())


def test_no_batch_is_over_the_cap_whatever_the_mixture():
    async def scenario() -> None:
        async with bench(max_batch_rows=10) as b:
            asked = [b.ask(*range(100 * size, 100 * size + size)) for size in (1, 7, 13, 2, 31, 10)]
            await b.gate.open(7)
            for task, size in zip(asked, (1, 7, 13, 2, 31, 10), strict=True):
                assert await task == [2 * row for row in range(100 * size, 100 * size + size)]
            assert max(len(batch) for batch in b.gate.batches) == 10

    asyncio.run(scenario())


def test_a_large_request_does_not_starve_a_small_one():
    async def scenario() -> None:
        async with bench(max_batch_rows=2 * TURN_ROWS) as b:
            large = b.ask(*range(20 * TURN_ROWS))
            await settle()
            small = b.ask(7)
            await settle()
            await b.gate.open(2)
            assert await asyncio.wait_for(small, 10) == [14]
            assert not large.done()
            await b.gate.open(9)
            assert len(await large) == 20 * TURN_ROWS

    asyncio.run(scenario())


def test_the_queue_is_empty_again_after_everything_was_served():
    async def scenario() -> None:
        async with bench() as b:
            for _ in range(5):
                asked = b.ask(*range(8))
                await b.gate.open()
                assert len(await asked) == 8
            assert b.observer.queue[-1] == 0
            assert max(b.observer.queue) == 8

    asyncio.run(scenario())


def test_cancelled_caller_does_not_harm_batchmates():
    async def scenario() -> None:
        async with bench() as b:
            gone, stays = b.ask(1), b.ask(2)
            await asyncio.wait_for(b.gate.started.get(), 10)
            gone.cancel()
            await settle()
            b.gate._passes[0].set()
            assert await stays == [4]
            with pytest.raises(asyncio.CancelledError):
                await gone

    asyncio.run(scenario())


def test_rows_of_a_cancelled_caller_are_never_computed_and_free_their_place():
    async def scenario() -> None:
        async with bench() as b:
            computing = b.ask(0)
            await asyncio.wait_for(b.gate.started.get(), 10)
            gone = b.ask(1, 2, 3, 4)
            await settle()
            gone.cancel()
            await settle()
            next_one = b.ask(5, 6, 7, 8)
            await settle()
            b.gate._passes[0].set()
            await b.gate.open()
            assert await computing == [0]
            assert await next_one == [10, 12, 14, 16]
            assert b.gate.batches == [[0], [5, 6, 7, 8]]

    asyncio.run(scenario())


class Releasing(Workers):
    """Does something in the very turn of the loop in which a worker is given back."""

    at_release: Callable[[], object] = staticmethod(lambda: None)

    def release(self) -> None:
        self.at_release()
        super().release()


def test_a_caller_that_goes_as_a_worker_becomes_free_is_not_computed():
    async def scenario() -> None:
        pool = Releasing(1)
        b = Bench(pool, 64, None)
        first = b.ask(1)
        await settle()
        gone = b.ask(7, 8)
        await settle()
        pool.at_release = gone.cancel
        await b.gate.open()
        assert await first == [2]
        await settle()
        stays = b.ask(9)
        await b.gate.open()
        assert await stays == [18]
        assert gone.cancelled()
        assert b.gate.batches == [[1], [9]]
        pool.close()

    asyncio.run(scenario())


def test_the_rest_of_a_split_request_is_dropped_when_its_caller_goes():
    async def scenario() -> None:
        async with bench(max_batch_rows=8) as b:
            gone = b.ask(*range(40))
            await asyncio.wait_for(b.gate.started.get(), 10)
            gone.cancel()
            await settle()
            stays = b.ask(100)
            await settle()
            b.gate._passes[0].set()
            await b.gate.open()
            assert await stays == [200]
            assert b.gate.batches == [list(range(8)), [100]]

    asyncio.run(scenario())


def test_a_late_row_is_answered_with_a_missed_deadline_and_never_computed():
    async def scenario() -> None:
        async with bench() as b:
            computing = b.ask(0)
            await asyncio.wait_for(b.gate.started.get(), 10)
            with pytest.raises(DeadlineExceeded):
                await b.ask(1, timeout_s=0.01)
            b.gate._passes[0].set()
            assert await computing == [0]
            await settle()
            assert b.gate.batches == [[0]]

    asyncio.run(scenario())


def test_one_bad_batch_fails_its_own_rows_only():
    async def scenario() -> None:
        async with bench() as b:
            b.gate.failures[0] = InferenceFailed("broken")
            bad = [b.ask(1), b.ask(2)]
            await asyncio.wait_for(b.gate.started.get(), 10)
            good = b.ask(3)
            await settle()
            b.gate._passes[0].set()
            await b.gate.open()
            for task in bad:
                with pytest.raises(InferenceFailed, match="broken"):
                    await task
            assert await good == [6]

    asyncio.run(scenario())


def test_a_failed_batch_takes_the_waiting_rest_of_its_requests_out_of_the_queue():
    async def scenario() -> None:
        async with bench(max_batch_rows=8) as b:
            b.gate.failures[0] = InferenceFailed("broken")
            bad = b.ask(*range(20))
            await b.gate.open()
            with pytest.raises(InferenceFailed):
                await bad
            assert b.observer.queue[-1] == 0
            good = b.ask(*range(20))
            await b.gate.open(3)
            assert len(await good) == 20

    asyncio.run(scenario())


def test_a_network_that_loses_a_chunk_is_found_out():
    async def scenario() -> None:
        async with bench(compute=lambda chunks: [list(chunk) for chunk in chunks][1:]) as b:
            with pytest.raises(InferenceFailed, match="wrong number"):
                await b.ask(1, 2)

    asyncio.run(scenario())


def test_two_workers_compute_two_batches_at_the_same_time():
    async def scenario() -> None:
        async with bench(workers=2, max_batch_rows=8) as b:
            asked = b.ask(*range(16))
            started = [await asyncio.wait_for(b.gate.started.get(), 10) for _ in range(2)]
            for number in reversed(started):
                b.gate._passes[number].set()
            assert await asked == [2 * row for row in range(16)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("rows", "workers", "shares"), [(16, 2, [8, 8]), (16, 3, [6, 5, 5]), (6, 2, [4, 2]), (3, 2, [3]), (16, 1, [16])]
)
def test_idle_workers_share_a_lone_request(rows, workers, shares):
    async def scenario() -> None:
        async with bench(workers=workers) as b:
            asked = b.ask(*range(rows))
            await settle()
            await b.gate.open(len(shares))
            assert await asked == [2 * row for row in range(rows)]
            assert sorted(map(len, b.gate.batches), reverse=True) == shares

    asyncio.run(scenario())


def test_a_busy_worker_is_not_kept_a_share():
    async def scenario() -> None:
        async with bench(workers=2) as b:
            first = b.ask(*range(100, 104))
            await settle()
            second = b.ask(*range(16))
            await settle()
            await b.gate.open(2)
            await asyncio.gather(first, second)
            assert [len(batch) for batch in b.gate.batches] == [4, 16]

    asyncio.run(scenario())


def test_two_networks_take_turns_on_one_worker():
    async def scenario() -> None:
        workers = Workers(1)
        one, other = Bench(workers, 1, None), Bench(workers, 1, None)
        order: list[str] = []

        async def follow(name: str, bench: Bench) -> None:
            for _ in range(3):
                number = await asyncio.wait_for(bench.gate.started.get(), 10)
                order.append(name)
                bench.gate._passes[number].set()

        asked = [one.ask(1, 2, 3), other.ask(4, 5, 6)]
        await asyncio.gather(follow("one", one), follow("other", other))
        assert await asyncio.gather(*asked) == [[2, 4, 6], [8, 10, 12]]
        assert order == ["one", "other"] * 3
        workers.close()

    asyncio.run(scenario())


def test_closing_refuses_new_rows_fails_waiting_ones_and_finishes_those_under_way():
    async def scenario() -> None:
        async with bench() as b:
            computing = b.ask(1)
            await asyncio.wait_for(b.gate.started.get(), 10)
            waiting = b.ask(2)
            await settle()
            closing = asyncio.create_task(b.batcher.close())
            await settle()
            with pytest.raises(Draining):
                await b.ask(3)
            with pytest.raises(Draining):
                await waiting
            b.gate._passes[0].set()
            assert await computing == [2]
            await closing
            assert b.gate.batches == [[1]]

    asyncio.run(scenario())


def test_callers_are_told_when_the_workers_are_gone():
    async def scenario() -> None:
        async with bench() as b:
            b.batcher._workers.close()  # type: ignore[attr-defined]
            with pytest.raises(RuntimeError):
                await asyncio.wait_for(b.ask(1), 10)

    asyncio.run(scenario())


def test_every_request_is_settled_once_under_a_storm_of_cancellations_and_failures():
    async def scenario() -> None:
        failing = {row for row in range(1000) if row % 17 == 0}

        def compute(chunks: Sequence[list[int]]) -> list[list[int]]:
            if any(row in failing for chunk in chunks for row in chunk):
                raise InferenceFailed("a bad row")
            return [[2 * row for row in chunk] for chunk in chunks]

        async with bench(workers=3, max_batch_rows=5, compute=compute) as b:
            asked = [b.ask(row, row + 1, row + 2) for row in range(0, 900, 3)]
            await settle()
            for task in asked[::7]:
                task.cancel()
            results = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
            kinds = {type(result) for result in results}
            assert kinds == {list, InferenceFailed, asyncio.CancelledError}
            for row, result in zip(range(0, 900, 3), results, strict=True):
                if isinstance(result, list):
                    assert result == [2 * row, 2 * row + 2, 2 * row + 4]
            assert b.observer.queue[-1] == 0

    asyncio.run(scenario())


def test_a_request_of_no_rows_is_a_fault_of_the_program():
    async def scenario() -> None:
        async with bench() as b:
            with pytest.raises(ValueError, match="at least one row"):
                await b.ask()

    asyncio.run(scenario())


def test_an_error_of_one_chunk_fails_its_caller_and_no_other():
    def compute(chunks: Sequence[list[int]]) -> list[list[int] | ServiceError]:
        return [InferenceFailed("a bad row") if 13 in chunk else [2 * row for row in chunk] for chunk in chunks]

    async def scenario() -> None:
        async with bench(compute=compute) as b:
            good, bad, also_good = b.ask(1, 2), b.ask(13), b.ask(3)
            assert await good == [2, 4]
            assert await also_good == [6]
            with pytest.raises(InferenceFailed):
                await bad

    asyncio.run(scenario())


def test_a_deadline_that_has_passed_already_is_told_at_once():
    async def scenario() -> None:
        async with bench() as b:
            with pytest.raises(DeadlineExceeded):
                await b.ask(1, timeout_s=-1)
            assert b.gate.batches == []
            assert b.observer.queue == []

    asyncio.run(scenario())


def test_a_caller_whose_rows_are_under_way_is_told_of_its_deadline_too():
    async def scenario() -> None:
        async with bench() as b:
            late = b.ask(1, timeout_s=0.01)
            await asyncio.wait_for(b.gate.started.get(), 10)
            with pytest.raises(DeadlineExceeded):
                await late
            b.gate._passes[0].set()
            good = b.ask(2)
            await b.gate.open()
            assert await good == [4]

    asyncio.run(scenario())


def test_each_of_many_deadlines_is_told_whatever_their_order():
    async def scenario() -> None:
        async with bench() as b:
            computing = b.ask(0)
            await asyncio.wait_for(b.gate.started.get(), 10)
            late = [b.ask(1, timeout_s=seconds) for seconds in (0.05, 0.01, 0.03, 0.02)]
            patient = b.ask(2)
            results = await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), 10)
            assert [type(result) for result in results] == [DeadlineExceeded] * 4
            b.gate._passes[0].set()
            await b.gate.open()
            assert await computing == [0]
            assert await patient == [4]
            assert b.gate.batches == [[0], [2]]

    asyncio.run(scenario())


def test_a_late_row_is_dropped_when_rows_are_taken_even_before_it_was_told():
    async def scenario() -> None:
        async with bench() as b:
            late, patient = b.ask(1, timeout_s=0.01), b.ask(2)
            await asyncio.sleep(0)  # both have asked; the loop goes on to the batch only once the time is over
            deadline = monotonic() + 0.02
            while monotonic() < deadline:
                pass
            await b.gate.open()
            with pytest.raises(DeadlineExceeded):
                await late
            assert await patient == [4]
            assert b.gate.batches == [[2]]

    asyncio.run(scenario())


def test_when_all_is_lost_everybody_who_waits_is_told_and_nobody_is_taken_any_more():
    async def scenario() -> None:
        async with bench(max_batch_rows=2) as b:
            computing, waiting = b.ask(1, 2), b.ask(3)
            await asyncio.wait_for(b.gate.started.get(), 10)
            b.batcher.fail(lambda: WorkerLost("all is lost"))
            for task in (computing, waiting, b.ask(4)):
                with pytest.raises(WorkerLost):
                    await task
            assert b.observer.queue[-1] == 0
            b.gate._passes[0].set()
            await b.batcher.close()
            assert b.gate.batches == [[1, 2]]

    asyncio.run(scenario())
