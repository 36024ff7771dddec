"""Make shards in local processes."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread

from app.dataset.plan import RESUME_HINT, DatasetError, Plan, Request
from app.dataset.shards import Setup, Shard, make_plan, make_shard


class ThisProcess:
    """The process of the command."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def plan(self, request: Request) -> Plan:
        """As `make_plan`."""
        return make_plan(self._setup, request)

    def shards(self, plan: Plan, numbers: Sequence[int]) -> Iterator[Shard]:
        """The shards of these numbers, in any order."""
        return (make_shard(self._setup, plan, number) for number in numbers)


class LocalProcesses:
    """Several processes, forked from this one, which must have one thread."""

    def __init__(self, setup: Setup, pool: ProcessPoolExecutor, size: int) -> None:
        self._setup, self._pool, self._size = setup, pool, size

    @classmethod
    @contextmanager
    def started(cls, setup: Setup, size: int) -> Iterator["LocalProcesses"]:
        """The processes, which are terminated at the end. Raises DatasetError if one dies."""
        pool = ProcessPoolExecutor(size, multiprocessing.get_context("fork"), _initialize)
        try:
            yield cls(setup, pool, size)
        except BrokenProcessPool:
            raise DatasetError(f"a process was killed, perhaps for lack of memory; {RESUME_HINT}") from None
        finally:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)

    def plan(self, request: Request) -> Plan:
        """As `make_plan`."""
        return self._pool.submit(make_plan, self._setup, request).result()

    def shards(self, plan: Plan, numbers: Sequence[int]) -> Iterator[Shard]:
        """The shards of these numbers, in any order. At most two per process are queued or being made."""
        left = iter(numbers)
        running: set[Future[Shard]] = set()
        while True:
            while len(running) < 2 * self._size and (number := next(left, None)) is not None:
                running.add(self._pool.submit(make_shard, self._setup, plan, number))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _initialize() -> None:
    """Exit when the parent process does, and let it handle Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
