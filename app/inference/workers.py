"""The worker threads that compute batches, and a watchdog for them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from app.scoreboard import Counter, Scoreboard

log = logging.getLogger(__name__)

T = TypeVar("T")
Notify = Callable[[], object]
Work = Callable[[], Notify]  # returns what to call once the worker is idle again


class _Worker(Thread):
    """A daemon thread, since a native call that hangs cannot be ended."""

    def __init__(self, number: int, initialize: Callable[[], object]) -> None:
        super().__init__(name=f"inference_{number}", daemon=True)
        self.tasks: SimpleQueue[Work | None] = SimpleQueue()
        self._initialize = initialize
        self.started = 0  # tasks
        self.busy = False
        # The task that the last check saw, and the number of checks in a row that saw it.
        self.seen = 0
        self.times_seen = 0

    def run(self) -> None:
        """Run tasks until one is None."""
        try:
            self._initialize()
            while (work := self.tasks.get()) is not None:
                self.started += 1
                self.busy = True
                notify = work()
                self.busy = False
                notify()
                del work, notify  # and their rows, before the wait for the next task
        except BaseException:
            log.critical("worker %s has ended", self.name, exc_info=True)


class Workers:
    """A pool of `size` threads that are assigned in order of request. It belongs to one running event loop."""

    def __init__(
        self, size: int, initialize: Callable[[], object] = lambda: None, busy: Counter | None = None, cores: int = 0
    ) -> None:
        """`initialize` is called once on each thread, before its first task.

        busy: counts the busy workers of all processes. A process may always use one worker, and more while fewer than
        `cores` are busy, so that a lone large job uses every core and busy processes do not compete for them.
        """
        self._size = size
        self._busy = busy or Scoreboard().counter("busy")
        self._cores = cores or size
        self._waiting: deque[Callable[[], None]] = deque()
        self._closed = False
        self._threads = [_Worker(number, initialize) for number in range(size)]
        self._idle_threads = [*self._threads]
        for thread in self._threads:
            thread.start()

    @property
    def idle(self) -> int:
        """Workers that may be used and are neither held nor promised."""
        own = self._busy.own
        return max(0 if own else 1, min(self._size - own, self._cores - self._busy.total))

    def when_free(self, start: Callable[[], None]) -> None:
        """Call `start` from the event loop, never from within this call, once a worker is free.

        The worker is held for `start`, which must call either `run` or `release`. Raises RuntimeError when closed.
        """
        if self._closed:
            raise RuntimeError("the workers are closed")
        if self.idle:
            self._busy.add(1)
            # Not at once: rows that arrive in this turn of the event loop can share the batch.
            asyncio.get_running_loop().call_soon(start)
        else:
            self._waiting.append(start)

    def run(self, function: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Call `function` on the worker that is held, then `done` on the event loop with its result or its exception.

        `done` must call `release`. A BaseException that is not an Exception ends the thread, which `check` reports.
        """
        loop = asyncio.get_running_loop()
        thread = self._idle_threads.pop()  # the last one to finish a task, whose caches are warm

        def work() -> Notify:
            result: T | None = None
            error: Exception | None = None
            try:
                result = function()
            except Exception as raised:
                error = raised
            return lambda: notify(result, error)

        def notify(result: T | None, error: Exception | None) -> None:
            with suppress(RuntimeError):  # the event loop was closed
                loop.call_soon_threadsafe(finish, result, error)

        def finish(result: T | None, error: Exception | None) -> None:
            self._idle_threads.append(thread)
            done(result, error)

        thread.tasks.put(work)

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """The result of `function` on the next free worker, or its exception.

        If the future is cancelled before a worker is free, the function is not called.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def start() -> None:
            if future.done():
                self.release()
            else:
                self.run(function, done)

        def done(result: T | None, error: Exception | None) -> None:
            self.release()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        self.when_free(start)
        return future

    def release(self) -> None:
        """Give the worker that is held to the next in line."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._busy.add(-1)

    def check(self, checks: int) -> str | None:
        """Why a worker is lost, None if all work. Call it at regular intervals.

        A worker is lost when its thread has ended, or when `checks` calls in a row saw it at the same task. Calls are
        counted rather than time, so that a process that was suspended loses no worker.
        """
        for thread in self._threads:
            same = thread.busy and thread.started == thread.seen
            thread.times_seen = thread.times_seen + 1 if same else int(thread.busy)
            thread.seen = thread.started
            if not thread.is_alive() and not self._closed:
                return f"worker {thread.name} has ended"
            if thread.times_seen >= checks:
                return f"worker {thread.name} was at the same task in {checks} checks"
        return None

    def close(self) -> None:
        """Let the threads end after the tasks that are queued."""
        self._closed = True
        for thread in self._threads:
            thread.tasks.put(None)
