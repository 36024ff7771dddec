"""The worker threads: how many run at once, and what the check reports."""

import asyncio
import sys
import threading
from dataclasses import dataclass, field
from threading import Barrier, Event, get_native_id

import pytest

from app.inference.workers import Workers
from tests.conftest import HANG_S

pytestmark = pytest.mark.anyio


@dataclass
class Task:
    """A task that runs until it is told to end."""

    started: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)

    def __call__(self) -> None:
        self.started.set()
        assert self.ended.wait(HANG_S)


async def start(workers: Workers) -> tuple[Task, "asyncio.Future[None]"]:
    """A task that runs on a worker, and its future."""
    task = Task()
    future = workers.submit(task)
    assert await asyncio.to_thread(task.started.wait, HANG_S)
    return task, future


async def test_every_thread_is_initialized_before_its_first_task(pool):
    initialized = set()
    workers = pool(2, lambda: initialized.add(threading.current_thread()))
    assert await workers.submit(threading.current_thread) in initialized


async def test_all_workers_run_at_the_same_time_and_no_more(pool):
    workers, both, lock = pool(2), Barrier(2), threading.Lock()
    running: list[int] = [0]

    def task() -> int:
        with lock:
            running.append(running[-1] + 1)
        both.wait(HANG_S)
        with lock:
            running.append(running[-1] - 1)
        return get_native_id()

    threads = await asyncio.gather(*(workers.submit(task) for _ in range(8)))
    assert len(set(threads)) == max(running) == 2
    assert workers.idle == 2


async def test_the_exception_of_a_task_is_raised_and_the_worker_takes_the_next(pool):
    workers = pool(1)
    with pytest.raises(ZeroDivisionError):
        await workers.submit(lambda: 1 // 0)
    assert await workers.submit(lambda: 7) == 7


async def test_closed_workers_refuse_tasks_end_their_threads_and_are_not_reported(pool):
    workers = pool(1)
    thread = await workers.submit(threading.current_thread)
    workers.close()
    with pytest.raises(RuntimeError):
        await workers.submit(lambda: 7)
    await asyncio.to_thread(thread.join, HANG_S)
    assert not thread.is_alive()
    assert workers.check(1) is None


async def test_a_worker_is_reported_once_so_many_checks_in_a_row_saw_it_at_one_task(pool):
    workers = pool(2)
    task, future = await start(workers)
    assert [workers.check(4) is None for _ in range(5)] == [True, True, True, False, False]
    task.ended.set()
    await future
    assert workers.check(1) is None


async def test_a_busy_worker_that_ends_its_tasks_is_not_reported(pool):
    workers = pool(1)
    for _ in range(5):
        task, future = await start(workers)
        assert workers.check(2) is None
        task.ended.set()
        await future


async def test_a_dead_worker_is_reported_at_the_next_check(pool):
    workers = pool(1)
    thread = await workers.submit(threading.current_thread)
    unanswered = workers.submit(sys.exit)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.to_thread(thread.join, HANG_S)
    assert workers.check(100) is not None
    unanswered.cancel()
