"""The threads that compute. Knows neither what they compute nor who asks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")


class Workers:
    """The pool of one device: at most `size` forward passes at the same time, first come, first served."""

    def __init__(self, size: int, initialize: Callable[[], object] = lambda: None) -> None:
        """`initialize` is called once on each thread, before anything else."""
        self._turn = asyncio.Semaphore(size)
        self.idle = size  # how many nobody has entered for
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="inference", initializer=initialize)

    async def __aenter__(self) -> Self:
        await self._turn.acquire()
        self.idle -= 1
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.idle += 1
        self._turn.release()

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` on a worker thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Let the threads end once they have nothing left to do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
