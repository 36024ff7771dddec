"""Short turns of the event loop, so that probes and new connections need not wait for hundreds of requests.

asyncio runs all ready callbacks before it polls sockets again, and the first response of a connection takes five turns.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# Requests that start in one turn; each takes about a tenth of a millisecond of it.
MAX_STARTS_PER_TURN = 16
# Bytes read from a connection in one turn. asyncio's 256 KiB of small chunks or headers take milliseconds to parse.
MAX_READ_BYTES = 64 * 1024


class Turns:
    """Starts requests in the order of their arrival, a few in each turn. It belongs to one running event loop."""

    def __init__(self) -> None:
        self._started = 0
        self._waiting: deque[Callable[[], None]] = deque()

    def start(self, begin: Callable[[], None]) -> None:
        """Call `begin` now, or in a later turn if many requests have started in this one."""
        if self._started == MAX_STARTS_PER_TURN:
            self._waiting.append(begin)
            return
        if not self._started:
            asyncio.get_running_loop().call_soon(self._next)
        self._started += 1
        begin()

    def _next(self) -> None:
        """The next turn."""
        self._started = 0
        for begin in [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_STARTS_PER_TURN))]:
            self.start(begin)
