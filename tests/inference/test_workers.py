"""The pool of threads: how many work at once, for whom, and what is noticed of one that does not."""

import asyncio
import os
import sys
import threading
from threading import get_native_id

import pytest

from app.inference.workers import NICER, Workers


def test_every_worker_is_prepared_before_it_works():
    async def scenario() -> None:
        workers = Workers(2, lambda: prepared.append(threading.current_thread().name))
        name = await workers.call(lambda: threading.current_thread().name)
        assert name in prepared
        workers.close()

    prepared: list[str] = []
    asyncio.run(scenario())


def test_work_runs_off_the_event_loop_and_never_on_more_workers_than_there_are():
    async def scenario() -> None:
        workers = Workers(2)
        running, most, lock = 0, 0, threading.Lock()
        both = threading.Barrier(2)

        def work() -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            both.wait(10)
            with lock:
                running -= 1
            return threading.current_thread().name

        names = await asyncio.gather(*(workers.call(work) for _ in range(8)))
        assert most == 2
        assert all(name.startswith("inference") for name in names)
        assert workers.idle == 2
        workers.close()

    asyncio.run(scenario())


def test_what_work_raises_is_raised_and_the_worker_works_on():
    async def scenario() -> None:
        workers = Workers(1)
        with pytest.raises(ZeroDivisionError):
            await workers.call(lambda: 1 // 0)
        assert await workers.call(lambda: 7) == 7
        workers.close()

    asyncio.run(scenario())


def test_closed_workers_take_nothing_and_their_threads_end():
    async def scenario() -> None:
        workers = Workers(1)
        thread = await workers.call(threading.current_thread)
        workers.close()
        with pytest.raises(RuntimeError):
            await workers.call(lambda: 7)
        thread.join(10)
        assert not thread.is_alive()
        assert workers.check(1) is None  # told to end is not lost

    asyncio.run(scenario())


def test_a_worker_is_lost_once_as_many_checks_in_a_row_found_it_at_the_same_work():
    async def scenario() -> None:
        workers = Workers(2)
        begun, opened = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            opened.wait(10)

        hanging = asyncio.create_task(workers.call(work))
        await asyncio.to_thread(begun.wait, 10)
        assert [workers.check(4) is None for _ in range(4)] == [True, True, True, False]
        assert "at the same pass in 4 checks" in (workers.check(4) or "")
        opened.set()
        await hanging
        assert workers.check(1) is None
        workers.close()

    asyncio.run(scenario())


def test_a_worker_that_ends_one_piece_of_work_after_another_is_not_lost():
    async def scenario() -> None:
        workers = Workers(1)
        for _ in range(5):
            begun, opened = threading.Event(), threading.Event()

            def work(begun: threading.Event = begun, opened: threading.Event = opened) -> None:
                begun.set()
                opened.wait(10)

            working = asyncio.create_task(workers.call(work))
            await asyncio.to_thread(begun.wait, 10)
            assert workers.check(2) is None
            opened.set()
            await working
        workers.close()

    asyncio.run(scenario())


def test_a_worker_whose_thread_has_ended_is_lost_at_the_next_check():
    async def scenario() -> None:
        workers = Workers(2)
        thread = await workers.call(threading.current_thread)

        def leave() -> None:
            raise SystemExit

        gone = asyncio.create_task(workers.call(leave))
        alive = [each for each in threading.enumerate() if each.name.startswith("inference")]
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: next(each for each in alive * 1_000_000 if not each.is_alive()))
        assert "has ended" in (workers.check(100) or "")
        assert not gone.done()  # nobody is left who could tell: that is what the check is for
        gone.cancel()
        workers.close()
        thread.join(10)

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an urgency for each thread")
def test_passes_are_less_urgent_than_the_event_loop():
    async def urgencies() -> tuple[int, int]:
        workers = Workers(1)
        worker = await workers.call(lambda: os.getpriority(os.PRIO_PROCESS, get_native_id()))
        workers.close()
        return worker, os.getpriority(os.PRIO_PROCESS, get_native_id())

    worker, loop = asyncio.run(urgencies())
    assert worker == min(19, loop + NICER)
