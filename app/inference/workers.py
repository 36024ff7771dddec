"""The threads that compute, and whether they still do. Knows neither what they compute nor who asks."""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_native_id
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
Tell = Callable[[], object]
Work = Callable[[], Tell]  # gives what is to be called once the worker does nothing any more

# How much less urgent a pass is than the event loop, which must hear, refuse and answer while every core computes.
NICER = 10


class _Worker(Thread):
    """Does one piece of work after another. A daemon: a native pass that hangs cannot be ended, only left behind."""

    def __init__(self, number: int, handed: "SimpleQueue[Work | None]", initialize: Callable[[], object]) -> None:
        super().__init__(name=f"inference_{number}", daemon=True)
        self._handed = handed
        self._initialize = initialize
        self.begun = 0
        self.busy = False
        # What the checks saw: the piece of work, and how often in a row.
        self.seen = 0
        self.times_seen = 0

    def run(self) -> None:
        """Until there is a None to do."""
        try:
            be_nicer()
            self._initialize()
            while (work := self._handed.get()) is not None:
                self.begun += 1
                self.busy = True
                tell = work()
                self.busy = False
                tell()
                del work, tell  # and with them their rows, before the wait for the next
        except BaseException:
            log.critical("worker %s ends", self.name, exc_info=True)


class Workers:
    """The pool of one device: at most `size` pieces of work at the same time, first come, first served.

    Belongs to one running event loop. Callbacks and no futures: a lone row is through before a task would have
    been made for it.
    """

    def __init__(self, size: int, initialize: Callable[[], object] = lambda: None) -> None:
        """`initialize` is called once on each thread, before anything else."""
        self.idle = size  # how many nobody holds or was promised
        self._asking: deque[Callable[[], None]] = deque()
        self._handed: SimpleQueue[Work | None] = SimpleQueue()
        self._closed = False
        self._threads = [_Worker(number, self._handed, initialize) for number in range(size)]
        for thread in self._threads:
            thread.start()

    def when_free(self, start: Callable[[], None]) -> None:
        """Call `start` from the event loop, never from within this call, once a worker is free.

        It is held for `start` then, which has to call either `run` or `release`. Raises RuntimeError when closed.
        """
        if self._closed:
            raise RuntimeError("the workers were closed")
        if self.idle:
            self.idle -= 1
            # Soon, and not now: what else comes in this turn of the loop can share the pass.
            asyncio.get_running_loop().call_soon(start)
        else:
            self._asking.append(start)

    def run(self, function: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Call `function` on the worker that is held, then `done` with what it gave or raised on the event loop.

        The worker is held until `release` is called, which `done` has to see to. Only an Exception is told: anything
        beyond ends the thread, which `check` finds out.
        """
        loop = asyncio.get_running_loop()

        def work() -> Tell:
            result: T | None = None
            error: Exception | None = None
            try:
                result = function()
            except Exception as raised:
                error = raised
            return lambda: tell(result, error)

        def tell(result: T | None, error: Exception | None) -> None:
            with suppress(RuntimeError):  # the loop was closed, and with it everybody who waits
                loop.call_soon_threadsafe(done, result, error)

        self._handed.put(work)

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` gives on the next free worker. Raises the Exception that it raises."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: T | None, error: Exception | None) -> None:
            self.release()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        self.when_free(lambda: self.run(function, done))
        return await future

    def release(self) -> None:
        """Give the worker that is held to whoever asks next."""
        if self._asking:
            self._asking.popleft()()
        else:
            self.idle += 1

    def check(self, checks: int) -> str | None:
        """Why there is a worker that computes no more; None while all do. To be called at even intervals.

        A worker is lost when its thread has ended, or when `checks` calls in a row found it at the same piece of work.
        Calls are counted and no clock is read: a process that was stopped for an hour has lost nothing.
        """
        for thread in self._threads:
            same = thread.busy and thread.begun == thread.seen
            thread.times_seen = thread.times_seen + 1 if same else int(thread.busy)
            thread.seen = thread.begun
            if not thread.is_alive() and not self._closed:
                return f"worker {thread.name} has ended"
            if thread.times_seen >= checks:
                return f"worker {thread.name} was at the same pass in {checks} checks"
        return None

    def close(self) -> None:
        """Let the threads end once they have nothing left to do."""
        self._closed = True
        for _ in self._threads:
            self._handed.put(None)


def be_nicer() -> None:
    """Let the other threads of this process go first. Only Linux has an urgency for each thread."""
    if sys.platform == "linux":
        thread = get_native_id()
        with suppress(OSError):  # where a sandbox forbids it, all are as urgent
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICER)
