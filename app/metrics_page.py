"""What Prometheus reads, rendered once for all who ask at the same time. Knows neither HTTP nor what is counted."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from prometheus_client import CollectorRegistry, generate_latest

# Of its time, a rendering's rest to its work. A page takes some ten milliseconds of the interpreter, anybody may ask
# for one at any time, and whoever asks again and again is not to take the event loop's turns.
REST = 4


class MetricsPage:
    """The registry as text. One rendering runs at a time, in a thread, and whoever waits for the next one shares it.

    A page is never older than the question: it shows what was counted before.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None
        self._rested_at = 0.0  # on the monotonic clock

    async def content(self) -> bytes:
        """The page, in Prometheus's text format."""
        if self._next is None:
            self._next = asyncio.create_task(self._render())
        return await asyncio.shield(self._next)  # which is also others'

    async def _render(self) -> bytes:
        async with self._turn:
            await asyncio.sleep(self._rested_at - monotonic())
            self._next = None  # who asks from here on is shown more
            started = monotonic()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, generate_latest, self._registry)
            finally:
                ended = monotonic()
                self._rested_at = ended + REST * (ended - started)

    def close(self) -> None:
        """Nobody asks any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
