"""Load that does not wait for answers: requests at even times, whatever the server does. Knows no server.

A closed loop sends less as the server slows down, and so leaves the worst times out of its percentiles ("coordinated
omission"). Here each latency counts from the moment that the request was due, also where a connection had to be opened
first. Requests for which there may be no further connection are counted as unsent and have no latency.
"""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from time import monotonic

# What a request came to beside the status of an answer.
UNREACHABLE = -1  # nobody took the connection: the request was not sent
LOST = -2  # sent, and the connection ended without a byte of an answer
CUT = -3  # an answer ended in the middle
UNSENT = -4  # as many connections as there may be were all waiting
UNANSWERED = -5  # the time to wait for it was over
NAMES = {UNREACHABLE: "unreachable", LOST: "lost", CUT: "cut", UNSENT: "unsent", UNANSWERED: "unanswered"}
TICK_S = 0.002
CONNECT_S = 5


class Record:
    """What became of each request: when it was due and answered (monotonic seconds), and its status."""

    def __init__(self) -> None:
        self.due, self.ended, self.status = array("d"), array("d"), array("h")
        self.surplus = 0  # bytes that belong to no request

    def add(self, due: float, status: int) -> None:
        """One request has come to its end."""
        self.due.append(due)
        self.ended.append(monotonic())
        self.status.append(status)

    def counts(self) -> dict[str, int]:
        """Requests by what they came to."""
        return {NAMES.get(status, str(status)): count for status, count in sorted(Counter(self.status).items())}

    def latencies_ms(self, status: int = 200, since: float = 0.0) -> list[float]:
        """Of the requests with this status that were due since then, in rising order."""
        rows = zip(self.due, self.ended, self.status, strict=True)
        return sorted(1000 * (ended - due) for due, ended, each in rows if each == status and due >= since)

    def silence_s(self, since: float, until: float) -> float:
        """The longest time without an answer of 200 between two moments."""
        rows = zip(self.ended, self.status, strict=True)
        good = sorted(ended for ended, status in rows if status == 200 and since <= ended <= until)
        moments = [since, *good, until]
        return max(later - earlier for earlier, later in pairwise(moments))


class Connection(asyncio.Protocol):
    """One request at a time; reads no more of an answer than its status, its length and whether it is the last."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._due: float | None = None
        self._head = b""
        self._left = -1  # bytes of the body that are to come, -1 before its head
        self._status, self._last = 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due then."""
        assert self._transport is not None
        self._due, self._head, self._left = due, b"", -1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        if self._due is None:
            self._load.record.surplus += len(data)
            return
        if self._left < 0:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            lower = head.lower()
            self._status = int(head[9:12])
            self._last = b"\r\nconnection: close" in lower
            self._left = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        self._left -= len(data)
        if self._left <= 0:
            self._load.record.surplus -= self._left
            self._end(self._status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Nothing more comes."""
        self._transport = None
        self._end(CUT if self._head else LOST)
        self._load.gone(self)

    def give_up(self) -> None:
        """Wait no longer."""
        self._end(UNANSWERED)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int) -> None:
        if self._due is None:
            return
        due, self._due = self._due, None
        self._load.record.add(due, status)
        if status > 0 and not self._last and self._transport is not None and not self._transport.is_closing():
            self._load.free(self)
        elif self._transport is not None:
            self._transport.close()


class Load:
    """Requests to one port of loopback, over at most so many connections."""

    def __init__(self, port: int, request: Callable[[int], bytes], max_connections: int = 1500) -> None:
        """`request`: the bytes of request number i."""
        self.record = Record()
        self._port = port
        self._request = request
        self._max = max_connections
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._again: Callable[[Connection], None] | None = None

    async def at_rate(self, per_second: float, seconds: float) -> None:
        """An open loop: so many a second, evenly, for so long."""
        start = monotonic()
        for number in range(int(per_second * seconds)):
            due = start + number / per_second
            while (left := due - monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(max(left, TICK_S))
            self._send(due)
        if (left := start + seconds - monotonic()) > 0:
            await asyncio.sleep(left)

    async def by_callers(self, callers: int, seconds: float) -> None:
        """A closed loop: so many callers who each ask again once they are answered."""
        self._again = lambda connection: connection.ask(self._next(), monotonic())
        for _ in range(callers):
            self._send(monotonic())
        await asyncio.sleep(seconds)
        self._again = None

    async def finish(self, wait_s: float = 10) -> None:
        """Wait for the answers that are due, then close."""
        end = monotonic() + wait_s
        while (self._opening or len(self._idle) < len(self._connections)) and monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(TICK_S)
        for connection in list(self._connections):
            connection.give_up()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)

    def free(self, connection: Connection) -> None:
        """A connection has its answer."""
        if self._again is not None:
            self._again(connection)
        else:
            self._idle.append(connection)

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)

    def _next(self) -> bytes:
        self._sent += 1
        return self._request(self._sent)

    def _send(self, due: float) -> None:
        if self._idle:
            self._idle.pop().ask(self._next(), due)
        elif len(self._connections) + len(self._opening) >= self._max:
            self.record.add(due, UNSENT)
        else:
            task = asyncio.create_task(self._open(due))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except (OSError, TimeoutError):
            self.record.add(due, UNREACHABLE)
            return
        self._connections.add(connection)
        connection.ask(self._next(), due)


def post(path: str, body: bytes, accept: str = "application/json") -> bytes:
    """A request with a JSON body that keeps its connection."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Accept: {accept}"]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def percentile(ordered: list[float], share: float) -> float:
    """Of values in rising order; nan where there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
