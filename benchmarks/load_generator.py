"""HTTP load as an open loop, which sends at even intervals, or as a closed loop, which waits for answers.

A closed loop sends less as the server slows down, so that its percentiles miss the worst times ("coordinated
omission"). In the open loop each latency counts from the moment that the request was due, including the time to open
a connection. When all connections are busy, a request is counted as unsent and has no latency.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from time import monotonic
from typing import NamedTuple

TICK_S = 0.002
CONNECT_S = 5
MAX_CONNECTIONS = 1500

# The results of requests without a complete answer.
UNREACHABLE = "unreachable"  # the connection was refused: the request was not sent
LOST = "lost"  # sent, and the connection ended before the answer began
CUT = "cut"  # the connection ended within the answer
UNSENT = "unsent"  # all connections were busy
UNANSWERED = "unanswered"  # no answer before the load ended


class Sample(NamedTuple):
    """One request: when it was due and when it ended (monotonic seconds), and the status or one of the above."""

    due: float
    ended: float
    result: str


class Record:
    """The samples of a load."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.surplus_bytes = 0  # received without a request

    def counts(self) -> dict[str, int]:
        """Requests by result."""
        return dict(sorted(Counter(sample.result for sample in self.samples).items()))

    def latencies_ms(self, status: str = "200") -> list[float]:
        """Latencies of the requests with this status, in rising order."""
        return sorted(1000 * (sample.ended - sample.due) for sample in self.samples if sample.result == status)

    def silence_s(self, since: float, until: float) -> float:
        """The longest time without an answer of 200 between two moments."""
        ended = (sample.ended for sample in self.samples if sample.result == "200")
        moments = [since, *sorted(moment for moment in ended if since <= moment <= until), until]
        return max(later - earlier for earlier, later in pairwise(moments))


class Connection(asyncio.Protocol):
    """One request at a time. Parses the status, the length and `Connection: close` of an answer, no more."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._due: float | None = None
        self._head = b""
        self._left = -1  # bytes of the body still to come; -1 before the head is complete
        self._status, self._last = "", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at a moment."""
        assert self._transport is not None
        self._due, self._head, self._left = due, b"", -1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        if self._due is None:
            self._load.record.surplus_bytes += len(data)
            return
        if self._left < 0:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            lower = head.lower()
            self._status = head[9:12].decode()
            self._last = b"\r\nconnection: close" in lower
            self._left = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        self._left -= len(data)
        if self._left <= 0:
            self._load.record.surplus_bytes -= self._left
            self._end(self._status, reusable=not self._last)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server closed the connection, or it failed."""
        self._transport = None
        self._end(CUT if self._head else LOST, reusable=False)
        self._load.forget(self)

    def abort(self) -> None:
        """Stop waiting for an answer, and close."""
        self._end(UNANSWERED, reusable=False)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, result: str, *, reusable: bool) -> None:
        if self._due is None:
            return
        due, self._due = self._due, None
        self._load.add(due, result)
        if reusable and self._transport is not None and not self._transport.is_closing():
            self._load.reuse(self)
        elif self._transport is not None:
            self._transport.close()


class Load:
    """Requests to one port of the loopback interface. `request(i)` gives the bytes of request number i."""

    def __init__(self, port: int, request: Callable[[int], bytes], max_connections: int = MAX_CONNECTIONS) -> None:
        self.record = Record()
        self._port = port
        self._request = request
        self._max = max_connections
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._closed_loop = False

    async def at_rate(self, per_second: float, seconds: float) -> None:
        """An open loop at a constant rate."""
        start = monotonic()
        for number in range(int(per_second * seconds)):
            due = start + number / per_second
            while (left := due - monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(max(left, TICK_S))
            self._send(due)
        if (left := start + seconds - monotonic()) > 0:
            await asyncio.sleep(left)

    async def by_callers(self, callers: int, seconds: float) -> None:
        """A closed loop: each caller sends again when it is answered."""
        self._closed_loop = True
        for _ in range(callers):
            self._send(monotonic())
        await asyncio.sleep(seconds)
        self._closed_loop = False

    async def finish(self, wait_s: float = 10) -> None:
        """Wait for the answers that are missing, then close all connections."""
        end = monotonic() + wait_s
        while (self._opening or len(self._idle) < len(self._connections)) and monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(TICK_S)
        for connection in list(self._connections):
            connection.abort()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)

    def add(self, due: float, result: str) -> None:
        """Record the end of a request."""
        self.record.samples.append(Sample(due, monotonic(), result))

    def reuse(self, connection: Connection) -> None:
        """Send the next request on a connection, or keep it for later."""
        if self._closed_loop:
            connection.send(self._next(), monotonic())
        else:
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended."""
        self._connections.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)

    def _next(self) -> bytes:
        self._sent += 1
        return self._request(self._sent)

    def _send(self, due: float) -> None:
        if self._idle:
            self._idle.pop().send(self._next(), due)
        elif len(self._connections) + len(self._opening) >= self._max:
            self.add(due, UNSENT)
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
            self.add(due, UNREACHABLE)
            return
        self._connections.add(connection)
        connection.send(self._next(), due)


def post(path: str, body: bytes, accept: str = "application/json", content_type: str = "application/json") -> bytes:
    """A POST request, over a connection that is kept open."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nAccept: {accept}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def percentile(ordered: list[float], share: float) -> float:
    """A percentile of values in rising order; nan where there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
